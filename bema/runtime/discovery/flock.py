"""The default Discovery: a folder of the user, in which a held lock is a lease.

Law: the kernel keeps the leases. A lock ends with its process, whatever ends it, without a TTL and without a server; the
closing of the lock file wakes every watcher. Ids are never reused, so a leftover can be removed by whoever sees it.
Local file systems only. The files and their rules are in `records.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bema.core.deferred import deferred
from bema.core.errors import BemaError, Conflict, Refused
from bema.core.instance import Instance
from bema.core.limits import DEFAULTS, Limits
from bema.core.naming import show_instance_id
from bema.core.paths import discovery_dir
from bema.core.settings import PartSettings
from bema.runtime import forks
from bema.runtime.discovery import records
from bema.runtime.discovery.discovery import Lease, LiveView, Reservation, View, Views
from bema.runtime.discovery.records import lock_path, record_path, remove_record, write_record

if TYPE_CHECKING:
    from bema.runtime.discovery import watcher
else:  # of a process that looks others up
    watcher = deferred("bema.runtime.discovery.watcher")

__all__ = ["FlockDiscovery", "lock_path", "record_path", "remove_record", "write_record"]

KEEP = 1.0  # seconds between looks at whether our own files are still there
TICK = 50_000_000  # nanoseconds, more than the kernel's clock for files takes for a step

_log = logging.getLogger("bema.discovery")


class FlockDiscovery:
    """Instances of this user on this machine. One per event loop; any number per folder."""

    spans_processes: bool = True

    def __init__(self, directory: Path | None = None, *, watch: bool = True, limits: Limits = DEFAULTS) -> None:
        self._limits = limits
        self.directory = discovery_dir() if directory is None else directory
        self._watch = watch
        self.leases: list[_FlockReservation] = []
        self._views = Views()
        self._watcher: watcher.Watcher | None = None
        self._folder = _Folder(self.directory)
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def open(cls, settings: PartSettings) -> FlockDiscovery:
        return cls(limits=settings.limits)

    async def register(self, instance: Instance) -> Lease:
        lease = await self.reserve(instance.id)
        try:
            await lease.update(instance)
        except BaseException:
            await lease.release()
            raise
        return lease

    async def reserve(self, instance_id: int) -> Reservation:
        records.prepare(self.directory)
        lease = _FlockReservation(self, instance_id, records.hold(self.directory, instance_id))
        try:
            # after the lock: the number is of a lease that is held
            lease.fence = await _fence(self.directory, self._limits.lease)
        except BaseException:
            await lease.release()
            raise
        return lease

    async def adopt(self, instance_id: int) -> Reservation:
        shown = None
        with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):  # whatever it was, it is written anew
            shown = records.read_record(self.directory, show_instance_id(instance_id))
        if shown is None:
            records.prepare(self.directory)
            return _FlockReservation(self, instance_id, None, fence=await _fence(self.directory, self._limits.lease))
        return _FlockReservation(self, instance_id, None, fence=shown.fence, shown=shown)

    async def view(self, namespace: str | None = None, component: str | None = None) -> View:
        if self._watcher is None:
            records.prepare(self.directory)
            self._watcher = watcher.Watcher(self.directory, self._views, watch=self._watch)
        else:
            self._watcher.catch_up()
        return self._views.open(namespace, component, self._forget)

    def keep(self) -> None:
        """Look after the files of our leases from now on."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEEP, self._keep)

    def _keep(self) -> None:
        self._timer = None
        touched, inodes = self._folder.look()
        for lease in tuple(self.leases):
            if lease.unwritten or (touched and not lease.stands(inodes)):
                lease.keep()
            elif lease.former:
                lease.let_go_of_former()
        # an adopted lease is looked after by its own process
        if any(lease.descriptor is not None or lease.unwritten for lease in self.leases):
            self.keep()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for lease in tuple(self.leases):
            if lease.descriptor is None:
                lease.leave()
            else:
                await lease.release()
        for view in self._views.opened():
            await view.close()

    def reopened(self) -> FlockDiscovery:
        """The same folder for another event loop."""
        return FlockDiscovery(self.directory, watch=self._watch, limits=self._limits)

    def _forget(self, view: LiveView) -> None:
        self._views.close(view)
        if not self._views.opened() and self._watcher is not None:
            self._watcher.close()
            self._watcher, self._views = None, Views()

    def look_at(self, label: str) -> None:
        if self._watcher is not None:
            self._watcher.look_at(label)


class _Folder:
    """Whether something came to the folder or went from it since the last look.

    One `stat` tells, however many leases there are: with a timer and three for each, 5,000 leases took a seventh of a core.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: tuple[int, int, int] | None = None

    def look(self) -> tuple[bool, dict[str, int]]:
        """Whether it was touched, and then the inodes of what is in it, by name."""
        try:
            found = self._directory.stat()
            seen = (found.st_dev, found.st_ino, found.st_mtime_ns)
            if seen == self._seen:
                return False, {}
            # the kernel's clock for files ticks: what comes in the same tick leaves the same time
            self._seen = seen if time.time_ns() - found.st_mtime_ns > TICK else None
            with os.scandir(self._directory) as entries:
                return True, {entry.name: entry.inode() for entry in entries}
        except OSError:
            self._seen = None
            return True, {}


class _FlockReservation:
    """A held lock and the record it keeps alive; after `hand_over`, or of an adopted one, the record alone.

    The lock is of the open file, not of a process: whoever has a copy of the descriptor holds it.
    """

    def __init__(
        self,
        home: FlockDiscovery,
        instance_id: int,
        descriptor: int | None,
        *,
        fence: int = 0,
        shown: Instance | None = None,
    ) -> None:
        self.fence = fence
        self.shown = shown
        self._home = home
        self._id = instance_id
        self._descriptor = descriptor
        self._process = os.getpid()
        self.former: list[int] = []
        self._writing = threading.Lock()  # the watching thread writes too
        self._released = False
        self._last = shown
        self.unwritten = False  # `_last` is not what the file says
        self._warned = False
        label = show_instance_id(instance_id)
        self._names = (label + records.LOCK, label + records.RECORD)
        self._inode = 0
        home.leases.append(self)
        if descriptor is not None:
            self._inode = os.fstat(descriptor).st_ino
            forks.close_in_children(descriptor)
            home.keep()

    @property
    def descriptor(self) -> int | None:
        return self._descriptor

    async def update(self, instance: Instance) -> None:
        try:
            self.mark(instance)
        finally:
            if self.unwritten:
                self._home.keep()
        self._home.look_at(instance.label)

    def mark(self, instance: Instance) -> None:
        with self._writing:
            if not self._released:
                self._last = msgspec.structs.replace(instance, fence=self.fence)
                self.unwritten = True
                write_record(self._home.directory, self._last)
                self.shown = self._last
                self.unwritten = self._warned = False

    def stands(self, inodes: dict[str, int]) -> bool:
        """Whether our files are among those of the folder."""
        lock, record = self._names
        return self._last is None or (record in inodes and inodes.get(lock) == self._inode)

    def keep(self) -> None:
        """Come back after somebody cleared the folder, as temporary ones are, and write what could not be written."""
        # a lock that was handed over cannot be taken again here: then there is nothing to do but write
        holds = self._descriptor is not None
        if self._last is None:
            return
        if not self.unwritten and (not holds or self._is_there()):
            self.let_go_of_former()
            return
        try:
            records.prepare(self._home.directory)
            if holds:
                self._hold_again()
            self.mark(self._last)
            self._home.look_at(self._last.label)
        except (BemaError, OSError) as error:
            if not self._warned:
                self._warned = True
                _log.warning("the record of %s cannot be written, which is tried on: %s", self._last.label, error)

    def _is_there(self) -> bool:
        """Whether our record is there, and the lock beside it is the one that we hold."""
        assert self._descriptor is not None
        try:
            beside = lock_path(self._home.directory, self._id).stat()
        except OSError:
            return False
        ours = os.path.samestat(os.fstat(self._descriptor), beside)
        return ours and record_path(self._home.directory, self._id).exists()

    def _hold_again(self) -> None:
        with contextlib.suppress(Conflict):  # the record alone was removed: the lock is ours as ever
            descriptor = records.hold(self._home.directory, self._id)
            # who saw us knows us by the former lock until the new record has come to them
            if self._descriptor is not None:
                self.former.append(self._descriptor)
            self._descriptor = descriptor
            self._inode = os.fstat(descriptor).st_ino
            forks.close_in_children(descriptor)

    def let_go_of_former(self) -> None:
        while self.former:
            if forks.forget(descriptor := self.former.pop()):
                os.close(descriptor)

    async def hand_over(self) -> None:
        self.let_go_of_former()
        self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None and forks.forget(descriptor):
            os.close(descriptor)

    def leave(self) -> None:
        """Do nothing more: the lease is another process's, and who adopts it says what is shown."""
        if self in self._home.leases:
            self._home.leases.remove(self)

    async def release(self) -> None:
        self.leave()
        with self._writing:
            was_released, self._released = self._released, True
        self.let_go_of_former()
        # a forked child must not remove the record of its parent, which lives
        if was_released or os.getpid() != self._process:
            return
        # first the record, then the lock: who sees the lock free finds nothing left to bury
        remove_record(self._home.directory, self._id)
        self._close()
        self._home.look_at(show_instance_id(self._id))


async def _fence(directory: Path, within: float) -> int:
    """The next fencing number; another process counts for microseconds, unless it was stopped just then."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while (fence := records.next_fence(directory)) is None:  # noqa: ASYNC110 - another process's lock
                await asyncio.sleep(0.001)
            return fence
    raise Refused(f"{directory}/.fence stays locked by another process", code="state_unwritable")

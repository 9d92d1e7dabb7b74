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
from pathlib import Path

import msgspec

from bema.core.errors import BemaError, Conflict, Refused
from bema.core.instance import Instance
from bema.core.limits import DEFAULTS, Limits
from bema.core.naming import show_instance_id
from bema.core.paths import discovery_dir
from bema.core.settings import PartSettings
from bema.runtime import forks
from bema.runtime.discovery import records
from bema.runtime.discovery.discovery import Lease, LiveView, View, Views
from bema.runtime.discovery.records import lock_path, record_path, remove_record, write_record
from bema.runtime.discovery.watcher import Watcher

__all__ = ["FlockDiscovery", "lock_path", "record_path", "remove_record", "write_record"]

KEEP = 1.0  # seconds between looks at whether our own files are still there

_log = logging.getLogger("bema.discovery")


class FlockDiscovery:
    """Instances of this user on this machine. One per event loop; any number per folder."""

    def __init__(self, directory: Path | None = None, *, watch: bool = True, limits: Limits = DEFAULTS) -> None:
        self._limits = limits
        self.directory = discovery_dir() if directory is None else directory
        self._watch = watch
        self.leases: list[_FlockLease] = []
        self._views = Views()
        self._picture: Watcher | None = None

    @classmethod
    def open(cls, settings: PartSettings) -> FlockDiscovery:
        return cls(limits=settings.limits)

    async def register(self, instance: Instance) -> Lease:
        records.prepare(self.directory)
        lease = _FlockLease(self, records.hold(self.directory, instance.id), instance.id)
        try:
            lease.fence = await _fence(self.directory, self._limits.lease)
            await lease.update(instance)
        except BaseException:
            await lease.release()
            raise
        return lease

    async def view(self, namespace: str | None = None, component: str | None = None) -> View:
        if self._picture is None:
            records.prepare(self.directory)
            self._picture = Watcher(self.directory, self._views, watch=self._watch)
        else:
            self._picture.catch_up()
        return self._views.open(namespace, component, self._forget)

    async def close(self) -> None:
        for lease in tuple(self.leases):
            await lease.release()
        for view in self._views.opened():
            await view.close()

    def reopened(self) -> FlockDiscovery:
        """The same folder for another event loop."""
        return FlockDiscovery(self.directory, watch=self._watch, limits=self._limits)

    def _forget(self, view: LiveView) -> None:
        self._views.close(view)
        if not self._views.opened() and self._picture is not None:
            self._picture.close()
            self._picture, self._views = None, Views()

    def look_at(self, label: str) -> None:
        if self._picture is not None:
            self._picture.look_at(label)


class _FlockLease:
    """A held lock, and the record it keeps alive."""

    def __init__(self, home: FlockDiscovery, descriptor: int, instance_id: int) -> None:
        self._home = home
        self._id = instance_id
        self._descriptor = descriptor
        self._former: list[int] = []
        self.fence = 0
        self._writing = threading.Lock()  # the watching thread writes too
        self._released = False
        self._last: Instance | None = None
        self._unwritten = False  # `_last` is not what the file says
        self._warned = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(KEEP, self._keep)
        forks.close_in_children(descriptor)
        home.leases.append(self)

    async def update(self, instance: Instance) -> None:
        self.mark(instance)
        self._home.look_at(instance.label)

    def mark(self, instance: Instance) -> None:
        with self._writing:
            if not self._released:
                self._last = msgspec.structs.replace(instance, fence=self.fence)
                self._unwritten = True
                write_record(self._home.directory, self._last)
                self._unwritten = self._warned = False

    def _keep(self) -> None:
        """Come back after somebody cleared the folder, as temporary ones are, and write what could not be written."""
        self._timer = self._loop.call_later(KEEP, self._keep)
        if self._last is None:
            return
        if self._is_there() and not self._unwritten:
            self._let_go_of_former()
            return
        try:
            records.prepare(self._home.directory)
            self._hold_again()
            self.mark(self._last)
        except (BemaError, OSError) as error:
            if not self._warned:
                self._warned = True
                _log.warning("the record of %s cannot be written, which is tried on: %s", self._last.label, error)

    def _is_there(self) -> bool:
        """Whether our record is there, and the lock beside it is the one that we hold."""
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
            self._former.append(self._descriptor)
            self._descriptor = descriptor
            forks.close_in_children(descriptor)

    def _let_go_of_former(self) -> None:
        while self._former:
            if forks.forget(descriptor := self._former.pop()):
                os.close(descriptor)

    async def release(self) -> None:
        self._timer.cancel()
        with self._writing:
            self._released = True
        if self in self._home.leases:
            self._home.leases.remove(self)
        self._let_go_of_former()
        if forks.forget(self._descriptor):
            remove_record(self._home.directory, self._id)
            os.close(self._descriptor)
            self._home.look_at(show_instance_id(self._id))


async def _fence(directory: Path, within: float) -> int:
    """The next fencing number; another process counts for microseconds, unless it was stopped just then."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while (fence := records.next_fence(directory)) is None:  # noqa: ASYNC110 - another process's lock
                await asyncio.sleep(0.001)
            return fence
    raise Refused(f"{directory}/.fence stays locked by another process", code="state_unwritable")

"""What a discovery folder shows, kept current: told by inotify, looked at anew where nothing tells.

Law: subscribe, then scan; an event says only where to look, never what is there. The closing of a lock file is told just
before the kernel lets go of the lock, so such a place is looked at again a little later. The lock is the lease, also of
what lost its files: who was seen alive is shown until its lock is let go. An event costs a look at the one file that it
names, and all that are read in one turn of the loop are told at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from bema.core.errors import BemaError, Refused
from bema.core.instance import Instance
from bema.core.naming import is_instance_label, read_instance_id
from bema.runtime import processes
from bema.runtime.discovery import records
from bema.runtime.discovery.discovery import Views
from bema.runtime.discovery.inotify import CLOSE_WRITE, DELETE, Inotify

PROBES = (0.001, 0.005, 0.025)
SWEEP = 0.5  # how often pids are looked at: a lock that leaked into a child outlives its process
POLL = 0.25  # how often all is looked at where nothing tells of changes
ROUND = 256  # how many pids are looked at in one sweep: the loop has other work
HELD = 256  # locks that are kept open, so that their files may go; descriptors are few

_log = logging.getLogger("bema.discovery")


class Watcher:
    """The live instances of one folder by label; every change is shown to `views`."""

    def __init__(self, directory: Path, views: Views, *, watch: bool) -> None:
        self.instances: dict[str, Instance] = {}
        self._untold: dict[str, None] = {}  # labels that were looked at since the views were told
        self._checked: list[str] = []  # whose pid is still to be looked at in this round
        self._directory = directory
        self._views = views
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._unreadable: set[str] = set()
        self._named: set[str] = set()
        self._locks: dict[str, int] = {}
        self._unwatch = self._subscribe()
        self._scan()
        self._timer = self._again()

    def close(self) -> None:
        self._timer.cancel()
        if self._unwatch is not None:
            self._unwatch()
        while self._locks:
            os.close(self._locks.popitem()[1])

    def catch_up(self) -> None:
        """Show what has been written until now: whoever opens a view sees what was there before."""
        if self._unwatch is None:
            self._scan()
        elif (inotify := Inotify.shared()) is not None:
            inotify.catch_up()
            self._tell()

    def look_at(self, label: str) -> None:
        """Take this label's files as they are now."""
        self._take(label)
        self._tell()

    def _take(self, label: str) -> None:
        self._untold[label] = None
        known, lock = self.instances.pop(label, None), self._locks.pop(label, None)
        lives = known is not None and lock is not None and records.still_alive(lock, known)
        try:
            instance = records.read_record(self._directory, label)
            # taken anew each time, as the instances are: one may have come into this namespace, or
            # died
            self._views.strangers.pop(read_instance_id(label), None)
            if instance is not None and not self._found(instance) and not lives and not self._strange(instance):
                records.bury(self._directory, instance)
        except (OSError, ValueError, msgspec.MsgspecError, BemaError) as error:
            if label not in self._unreadable:
                self._unreadable.add(label)
                _log.warning("record %s in %s is skipped: %s", label, self._directory, error)
        else:
            self._unreadable.discard(label)
        if known is not None and lock is not None:
            if lives and label not in self.instances:
                self.instances[label], self._locks[label] = known, lock
            else:
                os.close(lock)

    def _found(self, instance: Instance) -> bool:
        """Show it if it lives."""
        lock = records.lock_of(self._directory, instance)
        if lock is None:
            return False
        self.instances[instance.label] = instance
        # beyond these an instance that loses its files is shown no more until it has written them
        # anew
        if len(self._locks) < HELD:
            self._locks[instance.label] = lock
        else:
            os.close(lock)
        return True

    def _strange(self, instance: Instance) -> bool:
        """Say it once of what is there and cannot be seen from here."""
        if not records.is_elsewhere(self._directory, instance):
            return False
        self._views.strangers[instance.id] = instance
        if instance.label not in self._named:
            self._named.add(instance.label)
            _log.warning("%s", records.of_stranger(instance))
        return True

    def _scan(self) -> None:
        labels = {path.stem for path in self._directory.glob(f"*{records.RECORD}") if is_instance_label(path.stem)}
        for label in labels | self.instances.keys():
            self._take(label)
        records.bury_orphans(self._directory, labels)
        self._tell()

    def _tell(self) -> None:
        untold, self._untold = self._untold, {}
        self._views.show((read_instance_id(label), self.instances.get(label)) for label in untold)

    def _soon(self, label: str) -> None:
        """Look at it now, and tell of it together with what else this turn of the loop brings."""
        # a start of a hundred instances is told in a few pictures, not in a hundred
        if not self._untold:
            self._loop.call_soon(self._tell)
        self._take(label)

    def _subscribe(self) -> Callable[[], None] | None:
        inotify = Inotify.shared() if self._watch else None
        try:
            return inotify.watch(self._directory, self._heard) if inotify else None
        except OSError:
            return None

    def _heard(self, mask: int, name: str) -> None:
        if not name:
            self._loop.call_soon(self._start_over)
        elif is_instance_label(label := name.rpartition(".")[0]):
            self._soon(label)
            if mask & (CLOSE_WRITE | DELETE) and self._is_there(label):
                for delay in PROBES:
                    self._loop.call_later(delay, self._probe, label)

    def _probe(self, label: str) -> None:
        if not self._timer.cancelled() and self._is_there(label):
            self.look_at(label)

    def _is_there(self, label: str) -> bool:
        """Whether it is shown, or was not buried yet: a dying process may still hold its lock."""
        return label in self.instances or (self._directory / f"{label}{records.RECORD}").exists()

    def _start_over(self) -> None:
        """Events were lost, or the folder itself went away."""
        if self._timer.cancelled():
            return
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()
        try:
            records.prepare(self._directory)
        except Refused as error:
            if unwatch is not None:
                _log.warning("%s; it is looked for until it is there", error.message)
            return
        self._unwatch = self._subscribe()
        self._scan()

    def _again(self) -> asyncio.TimerHandle:
        return self._loop.call_later(POLL if self._unwatch is None else SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._timer = self._again()
        if self._unwatch is None:
            self._start_over()
            return
        if not self._checked:
            self._checked = list(self.instances)
        looked, self._checked = self._checked[:ROUND], self._checked[ROUND:]
        for label in looked:
            instance = self.instances.get(label)
            if instance is not None and instance.pid and not processes.is_same(instance.pid, instance.process_start):
                self._soon(label)

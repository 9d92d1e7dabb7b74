"""Linux inotify, just enough to watch folders from an event loop (inotify(7)).

Law: one inotify per event loop, so one per process as a rule: a user has 128 of them. Where there is none to be had,
`Inotify.shared()` answers None and the watcher polls.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bema.runtime import forks

CLOSE_WRITE = 0x8
MOVED_TO = 0x80
DELETE = 0x200
DELETE_SELF = 0x400
Q_OVERFLOW = 0x4000
IGNORED = 0x8000
_ONLYDIR = 0x1000000
_MASK = CLOSE_WRITE | MOVED_TO | DELETE | DELETE_SELF | _ONLYDIR

_HEAD = struct.Struct("iIII")

Heard = Callable[[int, str], None]
"""Called with an event's mask and the name of the file; the name is empty where everything must be looked at again."""

_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Inotify] = weakref.WeakKeyDictionary()


class Inotify:
    """The inotify of one event loop; open while something is watched."""

    def __init__(self, libc: Any) -> None:
        self._libc = libc
        self._loop = asyncio.get_running_loop()
        self._heard: dict[int, list[Heard]] = {}
        self._descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError("no inotify to be had")
        forks.close_in_children(self._descriptor)
        self._loop.add_reader(self._descriptor, self._readable)

    @classmethod
    def shared(cls) -> Inotify | None:
        """The one of the running loop, or None where the system has none (left)."""
        loop = asyncio.get_running_loop()
        if loop not in _by_loop:
            try:
                _by_loop[loop] = cls(_libc())
            except OSError:
                return None
        return _by_loop[loop]

    def watch(self, directory: Path, heard: Heard) -> Callable[[], None]:
        """Call `heard` for every event in `directory`; returns what ends it. `OSError` where it cannot be watched."""
        watch = self._libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _MASK)
        if watch < 0:
            self._close_if_idle()
            raise OSError(f"{directory} cannot be watched")
        self._heard.setdefault(watch, []).append(heard)
        return lambda: self._unwatch(watch, heard)

    def _unwatch(self, watch: int, heard: Heard) -> None:
        listeners = self._heard.get(watch, [])
        if heard in listeners:
            listeners.remove(heard)
        if not listeners and self._heard.pop(watch, None) is not None:
            self._libc.inotify_rm_watch(self._descriptor, watch)
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._heard and forks.forget(self._descriptor):
            # a user has 128 of them: one that watches nothing is given back
            _by_loop.pop(self._loop, None)
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def catch_up(self) -> None:
        """Hear of what has happened until now, without waiting for a turn of the loop."""
        while self._readable():
            pass

    def _readable(self) -> bool:
        """Whether there was something to hear."""
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return False
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size + length
            name = os.fsdecode(data[at - length : at].rstrip(b"\0"))
            lost = mask & (Q_OVERFLOW | IGNORED | DELETE_SELF)
            everybody = [heard for listeners in self._heard.values() for heard in listeners]
            # an overflow names no watch: whatever is watched may have changed
            for heard in everybody if mask & Q_OVERFLOW else tuple(self._heard.get(watch, ())):
                heard(mask, "" if lost else name)
        return True


def _libc() -> Any:
    if not sys.platform.startswith("linux"):
        raise OSError("inotify is Linux only")
    import ctypes  # noqa: PLC0415 - a third of the start time, and only watchers need it

    return ctypes.CDLL(None, use_errno=True)

"""Who owns a state's file: one process at a time, by a lock that the kernel takes back on any death.

Law: the lock is the ownership. It is taken before the file is opened and kept until it is closed; a second opener is told in
one line who has it. The lock lies beside the file: SQLite loses its own locks when another descriptor of its file is closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import weakref
from pathlib import Path

from bema.core.errors import Refused

_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """Held from `take` to `release`. A forked child does not hold it: it would outlive its parent's death."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = path.with_name(f"{path.name}.lock")
        self._descriptor = -1

    def take(self) -> None:
        """`Refused` (state_held) naming the holder; (state_unwritable, no_flock) where there can be no lock."""
        try:
            self._lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Refused(f"{self._lock} cannot be opened: {error.strerror}", code="state_unwritable") from error
        try:
            # flock, not lockf: a record lock goes when any descriptor of the file is closed
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _first_line(os.read(descriptor, 200))
            os.close(descriptor)
            raise Refused(f"the state {self._path} is held by {holder}", code="state_held", holder=holder) from error
        except OSError as error:
            os.close(descriptor)
            raise Refused(f"{self._lock} cannot be locked: {error.strerror}", code="no_flock") from error
        self._descriptor = descriptor
        # who holds it is said for people: a full disk must not keep us from a store that can be read
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} ({_program()})\n".encode(), 0)
        _held.add(self)

    def release(self) -> None:
        _held.discard(self)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _program() -> str:
    """What runs here, as somebody would look for it in a list of processes."""
    started = Path(sys.argv[0])
    return started.parent.name if started.name == "__main__.py" else started.name or "python"


def _first_line(text: bytes) -> str:
    return text.decode(errors="replace").partition("\n")[0] or "another process"


def _forget() -> None:
    """In a forked child: its copy of the descriptor would keep the lock."""
    for lock in tuple(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget)

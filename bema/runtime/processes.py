"""Whether a process still lives. Law: a process is known by its id and its start time, since the kernel reuses ids."""

from __future__ import annotations

import functools
import os

_ENDED = (b"Z", b"X", b"x")


def process_start(pid: int) -> int | None:
    """The start time of `pid` in clock ticks since boot (field 22 of proc(5) stat); None when it has ended.

    A zombie has ended. Where there is no /proc the answer is 0 for a process that exists.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - half the cost of a Path
            line = file.read(1024)
    except (FileNotFoundError, ProcessLookupError):
        return None if os.path.exists("/proc/self/stat") else _signalled(pid)  # noqa: PTH110
    # the second field is the name in parentheses, which may hold spaces and parentheses (proc(5)): hence the last one
    fields = line[line.rindex(b")") + 2 :].split()
    return None if fields[0] in _ENDED else int(fields[19])


@functools.lru_cache(maxsize=1)
def own_start(pid: int) -> int:
    """The start time of this process, 0 where it is not known. `pid` is its own: a forked child must not get its parent's."""
    return process_start(pid) or 0


@functools.lru_cache(maxsize=1)
def own_namespace(pid: int) -> int:
    """The PID namespace of this process, an inode; 0 where it is not known. `pid` is its own, as above."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - as above
    except OSError:
        return 0


def is_same(pid: int, start: int) -> bool:
    """Whether the process that was recorded as (`pid`, `start`) lives; an unknown start (0) matches any."""
    found = process_start(pid)
    return found is not None and (start == 0 or found == 0 or found == start)


def _signalled(pid: int) -> int | None:
    # signal 0 tests for existence only; a process of another user exists too, but may not be signalled (kill(2))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0

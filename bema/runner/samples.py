"""Where the time of this process goes: the stacks of its threads, looked at many times a second, each with its weight.

Law: a look weighs what the thread used of a processor since the one before; one that waits weighs nothing, unless time
that passes is asked for.
"""

from __future__ import annotations

import sys
import threading
import time
import types
from typing import Any

from .stacks import OURS, outward

_PAUSE = 0.01  # seconds between two looks
_DEEPEST = 200
_MOST = 10_000  # stacks that differ
_LONGEST = 300.0  # seconds
_OF_A_THREAD = 6  # CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED

Stack = tuple[tuple[str, str, int], ...]


def taken(seconds: float, *, idle: bool) -> dict[str, Any]:
    """`frames` are (file, function, first line), `stacks` are [microseconds, frames by number, the outermost first]."""
    weights: dict[Stack, int] = {}
    looks, used = 0, _Used()
    end = time.monotonic() + min(max(seconds, 0.0), _LONGEST)
    before = time.monotonic_ns()
    while time.monotonic() < end:
        time.sleep(_PAUSE)
        now = time.monotonic_ns()
        passed, before = now - before, now
        looks += 1
        names = {thread.ident: thread for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            thread = names.get(ident)
            if thread is None or thread.name.startswith(OURS):
                continue
            weight = passed if idle else used.since(thread.native_id, passed)
            if weight <= 0:
                continue
            stack = _stack(frame)
            if stack in weights or len(weights) < _MOST:
                weights[stack] = weights.get(stack, 0) + weight
    return {"looks": looks, **_numbered(weights)}


def _stack(frame: types.FrameType) -> Stack:
    seen = [*outward(frame)][:_DEEPEST]
    return tuple((f.f_code.co_filename, f.f_code.co_qualname, f.f_code.co_firstlineno) for f in reversed(seen))


def _numbered(weights: dict[Stack, int]) -> dict[str, Any]:
    numbers: dict[tuple[str, str, int], int] = {}
    stacks = [
        [weight // 1000, [numbers.setdefault(frame, len(numbers)) for frame in stack]]
        for stack, weight in weights.items()
    ]
    return {"frames": list(numbers), "stacks": stacks}


class _Used:
    """What each thread used of a processor; where the kernel does not tell, every thread is one that works."""

    def __init__(self) -> None:
        self._before: dict[int, int] = {}

    def since(self, thread: int | None, passed: int) -> int:
        """Nanoseconds since the look before; the first look at a thread weighs nothing."""
        number = thread or 0
        try:
            # the clock of a thread by its number in the kernel: by its number in Python it would be read through a
            # pointer, which is a stranger's once the thread has ended
            now = time.clock_gettime_ns((~number << 3) | _OF_A_THREAD)
        except OSError:
            return passed
        before = self._before.get(number, now)
        self._before[number] = now
        return now - before

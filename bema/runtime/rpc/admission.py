"""Admission: how many calls run at once, how many wait, and the refusal of the rest before they run.

Laws: call `slots + queue + 1` is refused at once, with a hint in seconds of when to come back; an accepted call is not
lost. A call that is cancelled or runs out of time while it waits leaves the queue without running.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from bema.core.errors import Overloaded
from bema.core.spec import check_bound

_WEIGHT = 0.1  # of the newest call in the mean duration
_LEAST_HINT = 0.01


class Admitted(Protocol):
    """A call that is admitted; `began` is the moment, in seconds of the monotonic clock, or None while it waits."""

    began: float | None


class Admission:
    """Lets `slots` calls run and `queue` more wait; `BadDeclaration` unless both are possible bounds."""

    def __init__(self, slots: int, queue: int) -> None:
        self._slots = check_bound("slots", slots, 1)
        self._queue = check_bound("queue", queue, 0)
        self._running = 0
        self._mean = _LEAST_HINT
        self._waiting: deque[tuple[Admitted, Callable[[], None]]] = deque()

    def full(self) -> bool:
        return self._running >= self._slots and len(self._waiting) >= self._queue

    def refusal(self) -> Overloaded:
        """The error for a call beyond the queue; `retry_after` is the expected time until a place is free."""
        # the mean duration of calls, times those before it, shared among the slots
        hint = max(_LEAST_HINT, self._mean * (len(self._waiting) + 1) / self._slots)
        return Overloaded(
            f"{self._slots} calls run and {len(self._waiting)} wait, which is all this instance takes", retry_after=hint
        )

    def enter(self, call: Admitted, start: Callable[[], None]) -> None:
        """Start a call now, or when a slot is free."""
        if self._running < self._slots:
            self._begin(call, start)
        else:
            self._waiting.append((call, start))

    def _begin(self, call: Admitted, start: Callable[[], None]) -> None:
        self._running += 1
        call.began = monotonic()
        start()

    def leave(self, call: Admitted) -> None:
        """Take note that a call has ended, whether it ran or still waited, and start the next one."""
        if call.began is None:
            # seldom, and then among as many as `queue` allows: a deque finds nothing faster
            self._waiting = deque(entry for entry in self._waiting if entry[0] is not call)
            return
        self._mean += _WEIGHT * (monotonic() - call.began - self._mean)
        self._running -= 1
        if self._waiting and self._running < self._slots:
            self._begin(*self._waiting.popleft())

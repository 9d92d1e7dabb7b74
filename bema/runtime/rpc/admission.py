"""Admission: how many calls run at once, how many may wait, and the refusal of the rest before anything ran.

Law: call `slots + queue + 1` is refused at once with a hint of when to come back; what was accepted is not lost. A call that
is given up or runs out of time while it waits leaves the queue without ever running.
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
    """What is admitted: a call, which bears the moment it was let in."""

    began: float | None


class Admission:
    """`slots` calls run, `queue` more wait. A bound that is none is `BadDeclaration`, before any call meets it."""

    def __init__(self, slots: int, queue: int) -> None:
        self._slots = check_bound("slots", slots, 1)
        self._queue = check_bound("queue", queue, 0)
        self._running = 0
        self._mean = _LEAST_HINT
        self._waiting: deque[tuple[Admitted, Callable[[], None]]] = deque()

    def full(self) -> bool:
        return self._running >= self._slots and len(self._waiting) >= self._queue

    def refusal(self) -> Overloaded:
        """What a call beyond the queue gets; the hint is the time until a place should be free."""
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
        """A call has ended, whether it ran or still waited."""
        if call.began is None:
            self._waiting = deque(entry for entry in self._waiting if entry[0] is not call)
            return
        self._mean += _WEIGHT * (monotonic() - call.began - self._mean)
        self._running -= 1
        if self._waiting and self._running < self._slots:
            self._begin(*self._waiting.popleft())

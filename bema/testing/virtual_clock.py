"""VirtualClock: the machine's clock with days added, for tests of what waits for days.

Law: it passes as every clock does, and jumps when it is told; what a jump comes by rings in the order of its instants.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from bema.core.clock import SystemClock


class VirtualClock(SystemClock):
    """Bound to the event loop in which it is used."""

    def __init__(self) -> None:
        self._ahead = 0  # microseconds
        self._numbers = itertools.count()
        self._alarms: list[tuple[int, int, Callable[[], None]]] = []
        self._taken_back: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> int:
        return super().now() + self._ahead

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead / 1_000_000

    def at(self, instant: int, told: Callable[[], None]) -> Callable[[], None]:
        """Call `told` at that instant or soon after it, once; gives what takes this back, at any time."""
        number = next(self._numbers)
        heapq.heappush(self._alarms, (instant, number, told))
        self._set_timer()
        return lambda: self._taken_back.add(number)

    def after(self, seconds: float, told: Callable[[], None]) -> Callable[[], None]:
        """The same after so many seconds, which a jump may be."""
        return self.at(self.now() + round(seconds * 1_000_000), told)

    def next(self) -> int | None:
        """The instant of the next alarm; None where there is none."""
        while self._alarms and self._alarms[0][1] in self._taken_back:
            self._taken_back.discard(heapq.heappop(self._alarms)[1])
        return self._alarms[0][0] if self._alarms else None

    def jump(self, instant: int) -> None:
        """It is that instant now, if it was not later already."""
        self._ahead += max(0, instant - self.now())
        self._ring()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (instant := self.next()) is not None:
            wait = max(0, instant - self.now()) / 1_000_000
            self._timer = asyncio.get_running_loop().call_later(wait, self._ring)

    def _ring(self) -> None:
        while (instant := self.next()) is not None and instant <= self.now():
            _, _, told = heapq.heappop(self._alarms)
            told()
        self._set_timer()

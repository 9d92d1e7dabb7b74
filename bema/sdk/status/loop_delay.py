"""LoopDelay: how late an event loop is, for readers in other threads.

Laws: the delay counts from the timer that is due, so that it grows while the loop is blocked and cannot run the timer. Only
the loop writes, each time one whole value; a reader takes what is there and needs nothing of the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic

INTERVAL = 0.1  # seconds between two timers
BEATS = 100  # timers over which the greatest lag is shown: ten seconds


class LoopDelay:
    """Measures the delay of `loop` by a timer, until `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lags: deque[float] = deque([0.0], BEATS)
        self._latest = 0.0
        self._due = monotonic() + INTERVAL
        self._timer = loop.call_later(INTERVAL, self._turn)

    def close(self) -> None:
        self._timer.cancel()

    @property
    def stalled_for(self) -> float:
        """Seconds for which the timer is overdue now: 0 while the loop turns."""
        return max(0.0, monotonic() - self._due)

    @property
    def lag(self) -> float:
        """The greatest delay in seconds of the last `BEATS` timers and the current one."""
        return max(self._latest, self.stalled_for)

    def _turn(self) -> None:
        self._lags.append(self.stalled_for)
        # once per turn, by the loop: the reader in the other thread must not go through the deque
        self._latest = max(self._lags)
        self._due = monotonic() + INTERVAL
        self._timer = self._loop.call_later(INTERVAL, self._turn)

"""How late an event loop is, told to whoever asks from another thread.

Law: what is told is counted from the last beat, so that it grows while the loop stands and cannot beat. The loop alone
writes, each time one whole value; who reads takes what is there and asks nothing of the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic

INTERVAL = 0.1  # seconds between beats
BEATS = 100  # of which the latest is told


class LoopDelay:
    """Beats in `loop` until `close`."""

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
        """Seconds that the loop has not turned for, as of now."""
        return max(0.0, monotonic() - self._due)

    @property
    def lag(self) -> float:
        """How late it was at most, of late; while it stands, at least that long."""
        return max(self._latest, self.stalled_for)

    def _turn(self) -> None:
        self._lags.append(self.stalled_for)
        self._latest = max(self._lags)
        self._due = monotonic() + INTERVAL
        self._timer = self._loop.call_later(INTERVAL, self._turn)

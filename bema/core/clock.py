"""Clock: where code that is tested without waiting reads the time.

Law: durations are seconds of a monotonic clock and are never stored; instants are integer microseconds UTC.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds from an arbitrary start; for durations and deadlines."""
        ...

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC; for what is stored and shown."""
        ...


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> int:
        return time.time_ns() // 1000


class ManualClock:
    """A clock that moves when told: the in-memory twin."""

    def __init__(self, start: int = 1_700_000_000_000_000) -> None:
        self._start = start
        self._passed = 0.0

    def monotonic(self) -> float:
        return self._passed

    def now(self) -> int:
        return self._start + round(self._passed * 1_000_000)

    def advance(self, seconds: float) -> None:
        self._passed += seconds

"""Alarms: what is to happen at an instant. Law: a clock may be set, so what waits for long looks again now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from bema.core.clock import Clock, SystemClock

LOOK: Final = 60.0
"""Seconds between two looks at a clock that may have been set."""


class AlarmClock(Clock, Protocol):
    """A clock that tells when it is time, in the event loop that asked."""

    def at(self, instant: int, told: Callable[[], None]) -> Callable[[], None]:
        """Call `told` at that instant or soon after it, once; gives what takes this back, at any time."""
        ...

    def after(self, seconds: float, told: Callable[[], None]) -> Callable[[], None]:
        """The same after so many seconds, however the clock is set."""
        ...


class SystemAlarmClock(SystemClock):
    """The machine's clock; it is looked at again after `LOOK` seconds at the latest."""

    def at(self, instant: int, told: Callable[[], None]) -> Callable[[], None]:
        return _Alarm(self, instant, told).take_back

    def after(self, seconds: float, told: Callable[[], None]) -> Callable[[], None]:
        return asyncio.get_running_loop().call_later(seconds, told).cancel


class _Alarm:
    def __init__(self, clock: Clock, instant: int, told: Callable[[], None]) -> None:
        self._clock = clock
        self._instant = instant
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._timer = self._wait()

    def _wait(self) -> asyncio.TimerHandle:
        left = (self._instant - self._clock.now()) / 1_000_000
        return self._loop.call_later(min(max(left, 0.0), LOOK), self._ring)

    def _ring(self) -> None:
        if self._clock.now() >= self._instant:
            self._told()
        else:
            self._timer = self._wait()

    def take_back(self) -> None:
        self._timer.cancel()


async def until(clock: AlarmClock, instant: int) -> None:
    """Wait for an instant; at once where it has passed."""
    if clock.now() >= instant:
        return
    come = asyncio.Event()
    forget = clock.at(instant, come.set)
    try:
        await come.wait()
    finally:
        forget()

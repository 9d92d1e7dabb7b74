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
        loop = asyncio.get_running_loop()

        def wait() -> asyncio.TimerHandle:
            left = (instant - self.now()) / 1_000_000
            return loop.call_later(min(max(left, 0.0), LOOK), ring)

        def ring() -> None:
            nonlocal timer
            if self.now() >= instant:
                told()
            else:
                timer = wait()

        timer = wait()
        # a cell and no method of the handle: a look that came too early has replaced it
        return lambda: timer.cancel()


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

"""The report of an app: tells its launcher when the app takes no calls, and when it does again.

An app holds its socket and its lease whatever becomes of its loop and its threads, so that connecting to it proves nothing.
Law: an app is stalled while its loop does not turn; it is not ready while the same calls have held every thread of its pool for
as long as a loop may stand still. A full pool whose calls come and go is a busy app, not a stuck one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from bema.core.limits import Limits
from bema.runtime.process.channel import Channel
from bema.runtime.process.watchdog import Watchdog
from bema.sdk.apps.http_app import Holders
from bema.wire.module.messages import Status

_FEATURE = "status"  # what the launcher lists that takes reports


class AppReport:
    """Watches one app; `tell` is called with each status that differs from the last, from whichever thread sees it."""

    def __init__(self, limits: Limits, holders: Holders, tell: Callable[[Status], None]) -> None:
        self._limits = limits
        self._holders = holders
        self._tell = tell
        self._ready = True
        self._stalled = False
        self._said = Status()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        # a thread of its own tells of the loop: the loop cannot say that it stands still
        watchdog = Watchdog(self._limits.stalled, lambda: self._mark(stalled=True), lambda: self._mark(stalled=False))
        looking = asyncio.create_task(self._look(), name="threads of the app")
        try:
            yield
        finally:
            looking.cancel()
            watchdog.close()

    async def _look(self) -> None:
        held, since = None, time.monotonic()
        while True:
            before, held = held, self._holders()
            # counting alone would call an app stuck that is merely busy: with more clients than
            # threads the pool is full at every look
            if held is None or held != before:
                since = time.monotonic()
            self._mark(ready=time.monotonic() - since < self._limits.stalled)
            await asyncio.sleep(min(self._limits.health, self._limits.stalled / 2))

    def _mark(self, *, ready: bool | None = None, stalled: bool | None = None) -> None:
        self._ready = self._ready if ready is None else ready
        self._stalled = self._stalled if stalled is None else stalled
        status = Status(ready=self._ready, stalled=self._stalled)
        if status != self._said:
            self._said = status
            self._tell(status)


@contextlib.contextmanager
def reported(limits: Limits, holders: Holders, channel: Channel | None, features: list[str] | None) -> Iterator[None]:
    """Report while the app serves, to a launcher that takes reports."""
    if channel is None or _FEATURE not in (features or ()):
        yield
        return
    with AppReport(limits, holders, channel.tell).watching():
        yield

"""The watch over an event loop: a thread sees that the loop does not turn, and says so while it does not.

A handler that blocks its loop keeps its lease, because the kernel holds that; callers should know nevertheless. Law: what
is said from the thread is said to the store or to the launcher, never to anything that belongs to the loop; and the
loop's word comes last: it waits for a thread that is just saying the opposite.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic

PER_LIMIT = 4  # how often within the limit both sides look


class Watchdog:
    """Calls `stalled()` in a thread when the loop has not turned for `after` seconds, and `turns()` in the loop when it does."""

    def __init__(self, after: float, stalled: Callable[[], None], turns: Callable[[], None]) -> None:
        self._after = after
        self._stalled = stalled
        self._turns = turns
        self._said = False
        self._saying = threading.Lock()
        self._beat = monotonic()
        self._ended = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(after / PER_LIMIT, self._turn)
        # a daemon: a process that ends does not wait for who watches it
        threading.Thread(target=self._watch, name="bema-stall", daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._timer.cancel()

    def _turn(self) -> None:
        self._beat = monotonic()
        self._timer = self._loop.call_later(self._after / PER_LIMIT, self._turn)
        if self._said:
            with self._saying:
                self._said = False
                self._turns()

    def _watch(self) -> None:
        looked = monotonic()
        while not self._ended.wait(self._after / PER_LIMIT):
            before, looked = looked, monotonic()
            # a thread that was late itself was stopped with the whole process, and knows nothing of the loop
            if looked - before < self._after and looked - self._beat > self._after and not self._said:
                with self._saying:
                    self._said = True
                    self._stalled()

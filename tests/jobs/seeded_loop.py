"""SeededLoop: an event loop whose time jumps and whose order of callbacks a seed decides.

Laws: nothing here reads a clock or a socket, so the same seed gives the same run. Time stands while something is ready, and jumps
to the next timer when nothing is. Any ready callback may be next: code that is right here is right in every order that
sockets and threads may give it. A crash is raised between two callbacks, as kill -9 comes between two instructions.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Crashed(BaseException):
    """The process is gone: nothing of it runs any more."""


class Stuck(AssertionError):
    """Nothing is ready, and no timer will ever come."""


class Late(AssertionError):
    """What should have ended by then has not."""


class SeededLoop(asyncio.BaseEventLoop):
    """`shuffled` is how often another than the oldest ready callback is next; `crash_at` the number of the callback before
    which it crashes; `until` the moment in its seconds that it may not pass.
    """

    def __init__(self, chance: random.Random, at: float = 0.0, *, shuffled: float = 1.0) -> None:
        super().__init__()
        self.callbacks = 0
        self.crash_at = 0
        self.until = float("inf")
        self.most = 200_000  # callbacks: who turns in circles is never at rest
        self._chance = chance
        self._at = at
        self._shuffled = shuffled
        self._ready: deque[asyncio.Handle] = deque()
        self._scheduled: list[asyncio.TimerHandle] = []
        self._numbers: dict[asyncio.Task[Any], int] = {}

    def time(self) -> float:
        return self._at

    def _run_once(self) -> None:
        if not self._ready:
            self._jump()
        ready = self._ready
        self.callbacks += 1
        if self.callbacks == self.crash_at:
            raise Crashed
        if self.callbacks > self.most:
            raise Late(f"{self.most} callbacks, and all should have ended")
        index = self._chance.randrange(len(ready)) if len(ready) > 1 and self._chance.random() < self._shuffled else 0
        handle = ready[index]
        del ready[index]
        if not handle.cancelled():
            handle._run()

    def _jump(self) -> None:
        while not self._ready:
            if not self._scheduled:
                raise Stuck("nothing is ready, and no timer will come")
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            if timer.cancelled():
                continue
            self._at = max(self._at, timer.when())
            if self._at > self.until:
                raise Late(f"it is {self._at:.0f} s, and all should have ended")
            self._ready.append(timer)
            # whatever is due in the same moment may come in any order
            while self._scheduled and self._scheduled[0].when() <= self._at:
                timer = heapq.heappop(self._scheduled)
                timer._scheduled = False  # type: ignore[attr-defined]
                if not timer.cancelled():
                    self._ready.append(timer)

    def run(self, work: Coroutine[Any, Any, T], ended: Callable[[], None]) -> T:
        """Run to its end; `Crashed` where that comes first. After `ended` is told, whatever is left is dropped."""
        asyncio.set_event_loop(None)
        try:
            return self.run_until_complete(work)
        finally:
            ended()
            self._drop()
            self.close()

    def create_task(self, coro: Any, **more: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **more)
        self._numbers[task] = len(self._numbers)
        return task

    def _drop(self) -> None:
        """End the tasks that are left, so that the interpreter says nothing of them; what they still do is nobody's."""
        self.crash_at, self.until, self.most = 0, float("inf"), self.callbacks + 100_000
        self.set_exception_handler(lambda loop, context: None)
        for _ in range(50):
            left = asyncio.all_tasks(self)
            if not left:
                return
            # in the order in which they were made: a set's is another in each process
            for task in sorted(left, key=self._numbers.__getitem__):
                task.cancel()
            with contextlib.suppress(Stuck, Late):
                self.run_until_complete(asyncio.wait(left))

    # what BaseEventLoop leaves to those that have sockets

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

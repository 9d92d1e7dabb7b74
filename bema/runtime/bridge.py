"""Calls from code that cannot await: a runtime once more, in a loop on a thread of its own.

The thread has its own connections, so it works beside a loop that is blocked by whoever waits here.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from bema.runtime.threads import WAITS

T = TypeVar("T")
_END = object()


class Closing(Protocol):
    """A runtime, as far as its thread ends it."""

    async def close(self) -> None:
        """Let go of everything that is open."""


R = TypeVar("R", bound=Closing)


class Bridge(Generic[R]):
    """A runtime in a thread; `make` gives one that is of no loop yet."""

    def __init__(self, make: Callable[[], R]) -> None:
        self._process = os.getpid()
        self.runtime = make()  # first: one that is refused leaves no thread
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bema-bridge", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._begin(work).result()

    def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a call; where a handler's function waits for it, until the handler is given up."""
        waits = WAITS.get()
        return self.run(work) if waits is None else waits.result(self._begin(work))

    def iterate(self, opening: Coroutine[Any, Any, AsyncGenerator[T, None]]) -> Iterator[T]:
        """A stream of answers; leaving it early gives the call up."""
        stream = self.ask(opening)
        try:
            while (answer := self.ask(_next(stream))) is not _END:
                yield answer
        finally:
            self.run(stream.aclose())

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stayed_behind(self) -> bool:
        """Whether this is a forked child, and the thread is its parent's."""
        return self._process != os.getpid()

    def close(self) -> None:
        """End the thread and what it holds; in a forked child there is neither."""
        if self.stayed_behind():
            return
        self.run(self.runtime.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def in_a_loop() -> bool:
    """Whether this thread runs an event loop, which waiting here would block."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _next(stream: AsyncGenerator[T, None]) -> Any:
    return await anext(stream, _END)

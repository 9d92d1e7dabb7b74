"""Bridge: calls from code that cannot await, made by a second runtime in the event loop of a thread.

Law: the thread shares no connection with the caller's loop, so that it works while that loop is blocked by the caller.
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
    """What a bridge needs of the runtime that it runs."""

    async def close(self) -> None:
        """Release everything that is open."""


R = TypeVar("R", bound=Closing)


class Bridge(Generic[R]):
    """A runtime in a thread. `make` gives a runtime that no event loop has used yet."""

    def __init__(self, make: Callable[[], R]) -> None:
        self._process = os.getpid()
        self.runtime = make()  # first: one that is refused leaves no thread
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bema-bridge", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the thread's loop and block until it ends; raises what it raises."""
        return self._begin(work).result()

    def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """As `run`; in a handler's thread, `CancelledError` ends the wait when the handler's own call is cancelled."""
        waits = WAITS.get()
        return self.run(work) if waits is None else waits.result(self._begin(work))

    def iterate(self, opening: Coroutine[Any, Any, AsyncGenerator[T, None]]) -> Iterator[T]:
        """Yield the items of a stream. Leaving the iterator early cancels the stream."""
        stream = self.ask(opening)
        try:
            while (answer := self.ask(_next(stream))) is not _END:
                yield answer
        finally:
            # `run`, not `ask`: a handler that was cancelled still has to close what it opened
            self.run(stream.aclose())

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stayed_behind(self) -> bool:
        """Whether this process is a forked child: `os.fork` copies only the thread that calls it, not this one."""
        return self._process != os.getpid()

    def close(self) -> None:
        """Close the runtime and end the thread; blocks until both are done. Does nothing in a forked child."""
        if self.stayed_behind():
            return
        # in the loop of the thread, whose connections they are
        self.run(self.runtime.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def in_a_loop() -> bool:
    """Whether this thread runs an event loop, which a blocking wait would stop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _next(stream: AsyncGenerator[T, None]) -> Any:
    return await anext(stream, _END)

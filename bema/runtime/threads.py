"""Plain functions as handlers: a sync handler runs in a thread, so that it blocks nobody's event loop.

Law: a thread cannot be cancelled, what it waits for can: a call that is given up gives up the calls its function is waiting for.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from bema.core.call import Call, Stream, Unary

T = TypeVar("T")

_END = object()


class Waits:
    """The calls that a function in a thread waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: set[Future[Any]] = set()
        self._given_up = False

    def result(self, future: Future[T]) -> T:
        """In the thread: wait for `future`; `CancelledError` once it was given up."""
        with self._lock:
            self._futures.add(future)
            if self._given_up:
                future.cancel()
        try:
            return future.result()
        finally:
            with self._lock:
                self._futures.discard(future)

    def give_up(self) -> None:
        """In the loop: end what is waited for, and what will be."""
        with self._lock:
            self._given_up = True
            waited_for = tuple(self._futures)
        for future in waited_for:
            future.cancel()


WAITS: contextvars.ContextVar[Waits | None] = contextvars.ContextVar("bema_waits", default=None)
"""Of the function that runs in this thread, where a handler's does."""


def apart(function: Callable[[], T], name: str) -> Future[T]:
    """Run a function in a thread of its own, which no handler can keep waiting. What began is not cancelled."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - who waits for the future is told
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


async def in_thread(function: Callable[..., Any], *arguments: Any, waits: Waits | None = None) -> Any:
    """Run a function in the loop's executor with the context of the caller."""
    waits = waits or Waits()
    context = contextvars.copy_context()
    context.run(WAITS.set, waits)
    try:
        return await asyncio.get_running_loop().run_in_executor(None, context.run, function, *arguments)
    except asyncio.CancelledError:
        waits.give_up()
        raise


def unary_in_thread(function: Callable[[Call], Any]) -> Unary:
    def unary(call: Call) -> Any:
        return in_thread(function, call)

    return unary


def stream_in_thread(function: Callable[[Call], Iterator[Any]]) -> Stream:
    """A sync generator as a stream: each step in a thread, closed when the stream is."""

    async def stream(call: Call) -> AsyncIterator[Any]:
        items = await in_thread(function, call)
        step: asyncio.Future[Any] | None = None
        waits = Waits()
        try:
            while True:
                step = asyncio.ensure_future(in_thread(next, items, _END, waits=waits))
                item = await asyncio.shield(step)
                if item is _END:
                    return
                yield item
        finally:
            if step is not None and not step.done():
                # a generator cannot be closed while a thread is inside it
                waits.give_up()
                await asyncio.wait([step])
            close = getattr(items, "close", None)
            if close is not None:
                await in_thread(close)

    return stream

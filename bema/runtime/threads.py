"""Plain functions as handlers: a sync handler runs in a thread, so that it blocks nobody's event loop.

Laws: a thread cannot be cancelled, what it waits for can: a call that is given up gives up the calls its function is waiting
for. How many run at once is admission's to say, so the threads are as many as the calls: with fewer, functions that wait for
each other would stand still. A thread that outlives its process's grace does not keep the process.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from functools import partial
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


class Threads:
    """As many threads as functions run at once; one that was idle for `IDLE` seconds ends.

    The standard library's pool has a fixed size, and waits for its threads when the interpreter ends.
    """

    IDLE = 10.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: deque[_Worker] = deque()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` in a thread, at once. `RuntimeError` where the machine gives no thread more."""
        done: Future[T] = Future()
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            worker = _Worker(self)
            worker.start()
        worker.give(work, done)
        return done

    def rest(self, worker: _Worker) -> None:
        """It is free: the one that was used last is used next, so that the others can end."""
        with self._lock:
            self._idle.append(worker)

    def retire(self, worker: _Worker) -> bool:
        """Whether a worker that nobody needed may end; if not, work is on its way to it."""
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            return True

    def forked(self) -> None:
        """In a child: the threads stayed with the parent."""
        self._lock = threading.Lock()
        self._idle.clear()


class _Worker(threading.Thread):
    def __init__(self, home: Threads) -> None:
        super().__init__(name="bema-call", daemon=True)
        self._home = home
        self._given = threading.Semaphore(0)
        self._next: tuple[Callable[[], Any], Future[Any]] | None = None

    def give(self, work: Callable[[], Any], done: Future[Any]) -> None:
        self._next = (work, done)
        self._given.release()

    def run(self) -> None:
        while self._given.acquire(timeout=self._home.IDLE) or not self._home.retire(self):
            if self._next is None:
                continue
            (work, done), self._next = self._next, None
            if done.set_running_or_notify_cancel():
                _carry_out(work, done)
            del work, done
            self._home.rest(self)


def _carry_out(work: Callable[[], Any], done: Future[Any]) -> None:
    try:
        answer = work()
    except BaseException as error:  # noqa: BLE001 - a function may raise anything; it is its caller's
        done.set_exception(error)
    else:
        done.set_result(answer)


THREADS = Threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=THREADS.forked)


async def in_thread(function: Callable[..., Any], *arguments: Any, waits: Waits | None = None) -> Any:
    """Run a function in a thread of its own with the context of the caller."""
    waits = waits or Waits()
    context = contextvars.copy_context()
    context.run(WAITS.set, waits)
    try:
        return await asyncio.wrap_future(THREADS.submit(partial(context.run, function, *arguments)))
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

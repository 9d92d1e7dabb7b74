"""Threads for plain functions: a sync handler runs in a thread, so that it does not block the event loop.

Laws: a thread cannot be cancelled, but what it waits for can, so cancelling a call cancels the calls that its function waits
for. There are as many threads as running calls, and admission bounds those: with fewer threads, functions that wait for each
other would deadlock. The threads are daemons, so that a function that never returns does not keep the process alive.
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
from bema.runtime import forks

T = TypeVar("T")

_END = object()


class Waits:
    """The calls that one function in a thread waits for, so that they can be cancelled from the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: set[Future[Any]] = set()
        self._given_up = False

    def result(self, future: Future[T]) -> T:
        """Called in the thread: wait for `future`; `CancelledError` once `give_up` was called."""
        with self._lock:
            self._futures.add(future)
            # `give_up` may have come before: it cannot have seen this future
            if self._given_up:
                future.cancel()
        try:
            return future.result()
        finally:
            with self._lock:
                self._futures.discard(future)

    def give_up(self) -> None:
        """Called in the loop: cancel what the function waits for now, and whatever it waits for later."""
        with self._lock:
            self._given_up = True
            waited_for = tuple(self._futures)
        for future in waited_for:
            future.cancel()


WAITS: contextvars.ContextVar[Waits | None] = contextvars.ContextVar("bema_waits", default=None)
"""The waits of the handler's function that runs in this thread; None in other threads."""


class Threads:
    """A pool with as many threads as functions that run at once. A thread that was idle for `IDLE` seconds ends."""

    # not `ThreadPoolExecutor`: it has a fixed size, and joins its threads when the interpreter ends
    IDLE = 10.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: deque[_Worker] = deque()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` in a thread at once. `RuntimeError` where the machine gives no further thread."""
        done: Future[T] = Future()
        with self._lock:
            # under the lock with `retire`: a worker that ends itself and one that is given work
            # must agree
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            worker = _Worker(self)
            worker.start()
        worker.give(work, done)
        return done

    def rest(self, worker: _Worker) -> None:
        """Take a worker back as free."""
        with self._lock:
            # last in, first out: what is not needed stays idle until it ends
            self._idle.append(worker)

    def retire(self, worker: _Worker) -> bool:
        """Whether an idle worker may end. False means that `submit` has taken it, and its work is about to come."""
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            return True

    def forked(self) -> None:
        """Called in a forked child, where the parent's threads are not."""
        # the parent's lock may have been held by one of them, and nobody here would release it
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
                try:
                    _carry_out(work, done)
                except BaseException as error:  # noqa: BLE001 - what the function left in its thread, such as a tracer
                    _settle(done, error)
            # an idle thread must not keep the arguments and the answer of its last call alive
            del work, done
            self._home.rest(self)


def _carry_out(work: Callable[[], Any], done: Future[Any]) -> None:
    # a fork within the work comes back here in the child, whose thread this is now
    process = os.getpid()
    try:
        answer = work()
    except BaseException as error:  # noqa: BLE001 - a function may raise anything; it is its caller's
        if os.getpid() != process:
            forks.leave(error)
        _settle(done, error)
    else:
        if os.getpid() != process:
            forks.leave()
        done.set_result(answer)


def _settle(done: Future[Any], error: BaseException) -> None:
    if isinstance(error, StopIteration):
        # as in a coroutine (PEP 479): a future of asyncio refuses it, and its caller would wait for ever
        error, cause = RuntimeError("function raised StopIteration"), error
        error.__cause__ = cause
    if not done.done():
        done.set_exception(error)


THREADS = Threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=THREADS.forked)


async def in_thread(function: Callable[..., Any], *arguments: Any, waits: Waits | None = None) -> Any:
    """Run a function in a thread, with a copy of the caller's context variables; raises what it raises."""
    waits = waits or Waits()
    # a copy: the variables that are set for the thread are not seen by the caller (PEP 567)
    context = contextvars.copy_context()
    context.run(WAITS.set, waits)
    try:
        return await asyncio.wrap_future(THREADS.submit(partial(context.run, function, *arguments)))
    except asyncio.CancelledError:
        waits.give_up()
        raise


def unary_in_thread(function: Callable[[Call], Any]) -> Unary:
    """A plain function as a handler: each call runs in a thread."""

    def unary(call: Call) -> Any:
        return in_thread(function, call)

    return unary


def stream_in_thread(function: Callable[[Call], Iterator[Any]]) -> Stream:
    """A plain generator function as a streaming handler: each step runs in a thread."""

    async def stream(call: Call) -> AsyncIterator[Any]:
        items = await in_thread(function, call)
        step: asyncio.Future[Any] | None = None
        waits = Waits()
        try:
            while True:
                # `_END` as the default: a `StopIteration` cannot pass through a future (asyncio raises `TypeError`)
                step = asyncio.ensure_future(in_thread(next, items, _END, waits=waits))
                # shielded: the thread executes the generator whatever happens here, and must be
                # waited for below
                item = await asyncio.shield(step)
                if item is _END:
                    return
                yield item
        finally:
            if step is not None and not step.done():
                # `close` of a generator that a thread is executing raises `ValueError`
                waits.give_up()
                await asyncio.wait([step])
            close = getattr(items, "close", None)
            if close is not None:
                await in_thread(close)

    return stream

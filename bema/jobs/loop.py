"""DurableLoop: the event loop inside of which the handler of a durable call runs.

It turns only when it is told to, until nothing is ready: then every task of the handler waits for something of its call, and
the next completion can be given out. Law: it has no timers, no sockets and no threads; what a handler waits for outside of its
call would come at another moment in a replay, so it is refused in a sentence.
"""

from __future__ import annotations

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Final, NoReturn, cast

from bema.core.errors import Refused

_TIMERS: Final = ("call_later", "call_at", "time")

# from 3.12 on a thread has one running task: ours stands aside while a handler's runs; before, each loop has its own
_swap: Callable[[Any, Any], Any] = getattr(asyncio.tasks, "_swap_current_task", lambda loop, task: None)

_FIX = "Do it in a step: `await call.step(function, ...)`; wait with `call.sleep(seconds)` and `call.timeout(seconds)`."


class _Handle:
    """A callback that is ready, as slim as it can be: each step makes some. asyncio's own also tells where it was made."""

    __slots__ = ("_cancelled", "args", "callback", "context")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled


class DurableLoop:
    """Runs callbacks and tasks; `turn` runs what is ready, and what becomes ready meanwhile."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = cast("asyncio.AbstractEventLoop", self)  # asyncio asks for no more than what stands here
        self._ready: deque[_Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self.begun: Callable[[], object] = lambda: (
            None
        )  # in the context of each new task, in the order of their creation
        self._closed = False

    def turn(self) -> None:
        """Run until nothing is ready, from within a task of the outer loop."""
        if not self._ready:
            return
        outer = events._get_running_loop()
        task = _swap(outer, None)
        events._set_running_loop(self._loop)
        try:
            # until nothing is ready: a chain of callbacks has any length, and a completion too early would meet half of it
            while self._ready:
                handle = self._ready.popleft()
                if handle.cancelled():
                    continue
                try:
                    handle.context.run(handle.callback, *handle.args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - the edge of a loop, as asyncio's own has it
                    self.call_exception_handler({"exception": error})
        finally:
            events._set_running_loop(outer)
            _swap(outer, task)

    # what asyncio's futures and tasks ask of a loop

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> _Handle:
        handle = _Handle(callback, args, copy_context() if context is None else context)
        self._ready.append(handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._loop)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None, **more: Any
    ) -> asyncio.Task[Any]:
        own = copy_context() if context is None else context
        # before the task runs: its place must be known to its first step, whenever that comes
        own.run(self.begun)
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self._loop, name=name, context=own)
        self.tasks.append(task)
        return task

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._ready.clear()

    def get_debug(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task that nobody awaited failed: whoever replays it will see it fail again."""

    def __getattr__(self, name: str) -> NoReturn:
        # sockets, executors, signals, subprocesses: whatever else a library asks of the loop that it runs in
        what = "wait for a timer of asyncio, as `asyncio.sleep` and `asyncio.timeout` do" if name in _TIMERS else None
        raise Refused(
            f"{self._name}: a durable handler cannot {what or f'use {name!r} of its event loop'}",
            code="not_replayable",
            fix=_FIX,
        )

"""Owned tasks. Law: every task belongs to a scope, and a scope that ends cancels the tasks that it owns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Tasks:
    """A scope of tasks. The scope logs a task that fails, with its name, so that nobody has to await it."""

    def __init__(self, name: str = "") -> None:
        self._name = name
        # the event loop holds tasks weakly (asyncio, `create_task`): one that nobody else holds may vanish while it runs
        # in the order of their start, so that they are cancelled in it, however their addresses fall
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T], name: str = "") -> asyncio.Task[T]:
        """Run `work` until it ends or the scope does; `RuntimeError` once the scope has ended."""
        if self._closed:
            work.close()  # or the interpreter warns that it was never awaited
            raise RuntimeError(f"the scope {self._name!r} has ended and starts no {name or work}")
        task = asyncio.get_running_loop().create_task(work, name=name or None)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def see_to(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run work whose failure is for whoever waits for it: nobody is told otherwise."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._seen_to)
        return task

    def _seen_to(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            task.exception()  # looked at: who waited for it may have left

    async def through(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work that goes on to its end, though its caller is cancelled meanwhile."""
        return await asyncio.shield(self.see_to(work))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: task %s failed", self._name or "tasks", task.get_name(), exc_info=error)

    async def stop(self) -> None:
        """Cancel all tasks and wait until they have ended. Safe to call twice."""
        self._closed = True
        # a task of the scope may end the scope: it cannot wait for itself
        own = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not own]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def __aenter__(self) -> Tasks:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


async def before(event: asyncio.Event, awaited: Awaitable[T], otherwise: Callable[[], BaseException]) -> T:
    """What is awaited, or the exception of `otherwise` raised where the event comes first."""
    comes, result = asyncio.ensure_future(event.wait()), asyncio.ensure_future(awaited)
    try:
        await asyncio.wait({comes, result}, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        raise otherwise()
    finally:
        comes.cancel()
        result.cancel()


def is_cancelled() -> bool:
    """Whether somebody has cancelled the current task, and not the code in it itself, which may raise the same."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

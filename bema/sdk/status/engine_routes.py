"""Engine routes: functions of a process that HTTP clients call beside its status pages, with JSON objects both ways.

Laws: a function runs in its own event loop, in the context in which it was added, and to its end once it has begun. A call
that could not begin while the loop was blocked never begins. Tracebacks go to the log and not to the client.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import re
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import msgspec

from bema.core.errors import BadDeclaration, BemaError, Conflict, Disconnected, RemoteError, Unavailable, as_json
from bema.runtime.tasks import Tasks
from bema.sdk.status.loop_delay import LoopDelay

Function = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
Answer = tuple[int, bytes]  # status and JSON

LONGEST = 255
_PATH = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._-]*){2,}\Z")
_log = logging.getLogger("bema.service")


class EngineRoute(NamedTuple):
    path: str
    function: Function
    owner: object
    context: contextvars.Context


class EngineRoutes:
    """The functions of one event loop by path. The table exists whether or not a status server reads it."""

    def __init__(self) -> None:
        self._by_path: dict[str, EngineRoute] = {}

    def add(self, path: str, function: Function, owner: object) -> None:
        """Answer at `path`, which begins with a part of its owner's kind: `/engine/sleep`.

        Raises:
            BadDeclaration: the path breaks the naming rule (code `bad_name`), or `function` is not callable.
            Conflict: the path is taken (code `already_served`).
        """
        if not isinstance(path, str) or len(path) > LONGEST or not _PATH.match(path):
            raise BadDeclaration(
                f"the route {path!r} is not parts of letters, digits, '.', '_' and '-', at most {LONGEST} characters",
                code="bad_name",
                fix="Give it a name like start_profile or cache/clear.",
            )
        if not callable(function):
            raise BadDeclaration(f"the route {path} needs an async function, not {function!r}")
        if path in self._by_path:
            raise Conflict(f"the route {path} is there already", code="already_served")
        self._by_path[path] = EngineRoute(path, function, owner, contextvars.copy_context())

    def remove(self, owner: object) -> None:
        """Remove the routes that `owner` added."""
        for route in tuple(self._by_path.values()):
            if route.owner is owner:
                del self._by_path[route.path]

    def find(self, path: str) -> EngineRoute | None:
        """From any thread."""
        return self._by_path.get(path)

    def paths(self) -> list[str]:
        """From any thread."""
        return sorted(dict(self._by_path))


_tables: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, EngineRoutes] = weakref.WeakKeyDictionary()


def routes_of(loop: asyncio.AbstractEventLoop) -> EngineRoutes:
    return _tables.setdefault(loop, EngineRoutes())


class EngineRequest:
    """Calls the functions of `loop` from another loop, and owns the tasks in which they run."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: LoopDelay) -> None:
        self._loop = loop
        self._delay = delay
        self._tasks = Tasks("status")

    async def close(self) -> None:
        """Called in the functions' loop: cancel those that run."""
        await self._tasks.stop()

    async def ask(self, route: EngineRoute, body: dict[str, Any], patience: float) -> Answer:
        """Called in the client's loop: run a function and return its answer.

        Raises:
            Unavailable: the functions' loop was blocked for `patience` seconds before the function began, or has ended.
        """
        asked: Future[Answer] = Future()
        answer = asyncio.wrap_future(asked)
        try:
            self._loop.call_soon_threadsafe(self._begin, route, body, asked, context=route.context)
        except RuntimeError as error:
            raise Unavailable(f"this process ends: {route.path} did not begin") from error
        while not asked.running() and not asked.done():
            left = patience - self._delay.stalled_for
            # `cancel` fails once the function has begun: then its outcome is waited for, however long it takes
            if left <= 0 and asked.cancel():
                raise Unavailable(
                    f"the event loop of this process has stood still for {self._delay.stalled_for:.1f} s: {route.path} did not begin",
                    fix="Try again when /readyz says that it turns.",
                )
            await asyncio.wait({answer}, timeout=max(left, 0.01))
        return await answer

    def _begin(self, route: EngineRoute, body: dict[str, Any], asked: Future[Answer]) -> None:
        if not asked.set_running_or_notify_cancel():
            return
        try:
            task = self._tasks.start(_run(route, body), name=route.path)
        except RuntimeError:
            asked.set_result(_failed(503, Unavailable(f"this process ends: {route.path} did not begin")))
            return
        cut = Disconnected(f"this process ended before {route.path} did: its outcome is unknown")
        task.add_done_callback(
            lambda task: asked.set_result(
                _failed(503, cut) if task.cancelled() or task.exception() is not None else task.result()
            )
        )


async def _run(route: EngineRoute, body: dict[str, Any]) -> Answer:
    try:
        said: Any = route.function(body)
        if inspect.isawaitable(said):
            said = await said
        if not isinstance(said, dict):
            raise TypeError(f"{route.path} answered {type(said).__qualname__} where a dict is wanted")
        return 200, msgspec.json.encode(said)  # here, where nobody changes it meanwhile
    except Exception as error:  # noqa: BLE001 - a function of the user's may raise anything; it is who asks that is told
        _log.exception("%s failed", route.path)
        told = error if isinstance(error, BemaError) else RemoteError(f"{type(error).__qualname__}: {error}")
        return _failed(500, told)


def _failed(status: int, error: BemaError) -> Answer:
    return status, msgspec.json.encode(as_json(error), enc_hook=repr)

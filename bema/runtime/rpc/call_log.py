"""CallLog: a line in the log for each call that a process answers: endpoint, milliseconds, outcome, trace.

Laws: nobody pays who does not read: the log is opened where its logger takes INFO when the process begins to serve. A line
costs as much as several calls, so at most `log.calls` a second are written, and as many again of calls that failed. When
they are, the calls of that second are watched no longer: one that nobody watches costs nothing. Their number is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Protocol

from bema.core.call import trace_of
from bema.core.errors import BemaError, RemoteError
from bema.core.problems import PROBLEMS
from bema.core.settings import Settings

PERIOD = 1.0

_log = logging.getLogger("bema.calls")


class LoggedCall(Protocol):
    """What the log keeps on a call: when it was begun, if that was watched, and what became of it."""

    route: str
    started: float | None
    outcome: str


class WatchedRoute(Protocol):
    """The handlers of an endpoint in both forms, which the log replaces while it watches."""

    unary: Any
    stream: Any


class CallLog:
    """Writes at most `most` lines a second of calls, and `most` more of those that failed. `came` counts all calls."""

    def __init__(self, most: int, came: Callable[[], int]) -> None:
        self._most = most
        self._came = came
        self._began = 0.0
        self._written = 0
        self._failures = 0
        self._watched: list[tuple[WatchedRoute, Any, Any]] = []
        self._unwatched_at = 0  # how many calls had come then
        self._timer: asyncio.TimerHandle | None = None

    def add(self, route: WatchedRoute) -> None:
        """Watch the calls of one more endpoint."""
        self._watched.append((route, getattr(route, "unary", None), getattr(route, "stream", None)))
        if self._timer is None:
            self._watch()

    def _watch(self) -> None:
        for route, unary, stream in self._watched:
            # not coroutines around coroutines: they return what the handler returns, and cost an item of a stream nothing
            route.unary, route.stream = partial(self._noted, unary), partial(self._noted, stream)

    def _noted(self, handler: Callable[[Any], Any], call: Any) -> Any:
        task = asyncio.current_task()
        # without a task there is no end to hear of
        if task is not None:
            call.started = now = monotonic()
            if now - self._began > PERIOD:
                self._began, self._written, self._failures = now, 0, 0
            self._written += 1
            if self._written == self._most:
                self._rest(now)
            task.add_done_callback(partial(self._ended, call))
        return handler(call)

    def _rest(self, now: float) -> None:
        for route, unary, stream in self._watched:
            route.unary, route.stream = unary, stream
        # counted by the ids of calls, which grow anyway: a counter of our own would be paid by each
        # call
        self._unwatched_at = self._came()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, self._began + PERIOD - now), self._again)

    def _again(self) -> None:
        self._timer = None
        more = self._came() - self._unwatched_at
        if more > 0:
            _say(logging.INFO, f"{more} more calls (log.calls is {self._most} lines a second)", "")
        self._watch()

    def _ended(self, call: Any, task: asyncio.Task[None]) -> None:
        milliseconds = (monotonic() - call.started) * 1000
        _say(_level(call.outcome), f"{call.route} {milliseconds:.1f} ms {call.outcome}", trace_of(call))

    def failed(self, call: LoggedCall, error: BaseException, *, given_up: bool) -> None:
        """Take note of a failure. It is written here where the call was not watched; what was given up is none."""
        call.outcome = "cancelled" if given_up else error.code if isinstance(error, BemaError) else RemoteError.code
        if call.started is None and not given_up and self._failures < self._most:
            self._failures += 1
            _say(_level(call.outcome), f"{call.route} {call.outcome}", trace_of(call))  # type: ignore[arg-type]


def opened(settings: Settings, came: Callable[[], int]) -> CallLog | None:
    """The log of this process; None where nobody reads it."""
    most = settings.number("log.calls")
    return CallLog(most, came) if most and _log.isEnabledFor(logging.INFO) else None


def _level(outcome: str) -> int:
    # what its caller did wrong is no trouble of the service
    problem = PROBLEMS.get(outcome)
    return logging.WARNING if problem is not None and problem.http >= 500 else logging.INFO


def _say(level: int, text: str, trace: str) -> None:
    # handlers and filters are the user's: what they raise is not the call's
    with contextlib.suppress(Exception):
        _log.log(level, text, extra={"trace_id": trace})

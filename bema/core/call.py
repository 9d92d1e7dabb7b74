"""Call, and `Handler`, the one signature of everything that answers a call.

Law: a handler takes a `Call`. A unary handler stays unary from end to end, and a stream is an async iterator from end to
end; the adapters between the two live in this module and nowhere else.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar, overload

from bema.core.access import Principal
from bema.core.durable import Retry
from bema.core.errors import Invalid, Refused

__all__ = [
    "CURRENT",
    "Call",
    "Handler",
    "Interceptor",
    "Item",
    "Stream",
    "Unary",
    "as_stream",
    "as_unary",
    "chained",
    "trace_of",
    "traceparent",
]


R = TypeVar("R")
T = TypeVar("T")


class Call:
    """One invocation, as its handler sees it.

    - `route`: the endpoint's address, `namespace.component.endpoint`; `id`: unique to the call.
    - `arguments`: the decoded arguments by parameter name; `requests`: the incoming stream, where the endpoint takes one.
    - `metadata`: texts by name, passed on to every call that the handler makes; `traceparent` (W3C Trace Context) is one.
    - `deadline`: a time of `time.monotonic()` in seconds, or None.
    - `peer`: the name that the caller's process gave itself; `principal`: who asks, by the credential of the connection,
      or None where the caller showed none.
    - `resume`: the cursor of the last item that the caller has, where a resumable stream is continued; None for a new one.
    - `stopped`: the caller asked the stream to end early; `ended`: the call was answered.

    A caller that gives the call up cancels the one task that runs the handler.
    """

    # `ended` is for tasks that a handler leaves behind: they keep the call's metadata, but its deadline binds them no longer
    __slots__ = (
        "arguments",
        "deadline",
        "ended",
        "id",
        "metadata",
        "peer",
        "principal",
        "requests",
        "resume",
        "route",
        "stopped",
    )

    def __init__(
        self,
        route: str = "",
        arguments: dict[str, Any] | None = None,
        *,
        id: str = "",
        metadata: dict[str, str] | None = None,
        deadline: float | None = None,
        requests: AsyncIterator[Any] | None = None,
        peer: str = "",
        principal: Principal | None = None,
        resume: Any = None,
    ) -> None:
        self.route = route
        self.arguments = {} if arguments is None else arguments
        self.id = id
        self.metadata = {} if metadata is None else metadata
        self.deadline = deadline
        self.requests = requests
        self.peer = peer
        self.principal = principal
        self.resume = resume
        self.stopped = False
        self.ended = False

    # what a durable call may wait for; its handler runs in a `DurableCall`, which has all of it

    @property
    def suspending(self) -> bool:
        """Whether a durable call is only being put away: its `finally` runs now, and the handler is replayed later."""
        return False

    @overload
    async def step(
        self,
        function: Callable[..., Awaitable[R]],
        *arguments: Any,
        key: str = "",
        retry: Retry | None = None,
        **named: Any,
    ) -> R: ...
    @overload
    async def step(
        self, function: Callable[..., R], *arguments: Any, key: str = "", retry: Retry | None = None, **named: Any
    ) -> R: ...
    async def step(
        self, function: Callable[..., Any], *arguments: Any, key: str = "", retry: Retry | None = None, **named: Any
    ) -> Any:
        """Call `function`, once or again until its result is written; a replay gets that result and calls nothing.

        `key` stands for arguments that have no bytes. With `retry`, a failure is tried again, and the call is paused when
        the tries are exhausted; without, it is recorded and raised. `Failed` (not_recordable) for a result that cannot
        travel.
        """
        raise self._not_durable("step")

    async def sleep(self, seconds: float) -> None:
        """Wait, for days if need be: no process holds anything of a call that waits for more than a second."""
        raise self._not_durable("sleep")

    async def sleep_until(self, instant: int) -> None:
        """Wait until an instant in microseconds UTC."""
        raise self._not_durable("sleep_until")

    async def ask(self, model: type[T], prompt: str = "") -> T:
        """Wait for an answer from outside, which is of that type."""
        raise self._not_durable("ask")

    async def signal(self, name: str, model: Any = Any) -> Any:
        """Wait for the next signal of that name; one that came before is kept."""
        raise self._not_durable("signal")

    def now(self) -> int:
        """The instant of the last thing that was recorded, in microseconds UTC: the same in every replay."""
        raise self._not_durable("now")

    def random(self) -> float:
        """A number of at least 0 and below 1: the same in every replay."""
        raise self._not_durable("random")

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[None]:
        """As `asyncio.timeout`, in the time of the call; `DeadlineExceeded` when it passed."""
        raise self._not_durable("timeout")

    async def child(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a durable method of a handle once, whatever dies meanwhile, and wait for its result."""
        raise self._not_durable("child")

    def on_cancel(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call `function` as a step if the call is cancelled; the last one that was given goes first."""
        raise self._not_durable("on_cancel")

    def _not_durable(self, what: str) -> Refused:
        return Refused(f"call.{what}() is of durable calls, and {self.route or 'this one'} is none", code="not_durable")

    def is_stopped(self) -> bool:
        """Whether the caller asked for an early end: a handler that streams returns, and its stream is marked as cut."""
        return self.stopped

    def stop_generating(self) -> None:
        """Ask the handler to end early. It ends when it looks at `is_stopped()`."""
        self.stopped = True

    def is_killed(self) -> bool:
        """Whether the call is being cancelled, so that only clean-up code still runs."""
        return False

    def kill(self) -> None:
        """Cancel the call where a connection runs it; elsewhere, ask it to stop."""
        self.stopped = True


class Item(Generic[T]):
    """An item of a resumable stream with a cursor of its own: `yield Item(value, cursor=position)`.

    The caller gets the value. The cursor comes back as `call.resume` where the stream is continued behind this item. It is any
    value that travels, of at most 1,024 bytes.
    """

    __slots__ = ("cursor", "value")

    def __init__(self, value: T, cursor: Any) -> None:
        self.value = value
        self.cursor = cursor


CURRENT: ContextVar[Call | None] = ContextVar("bema_call", default=None)
"""The call that the running task answers; the calls that the task makes inherit its deadline and metadata."""

Unary = Callable[[Call], Awaitable[Any]]
Stream = Callable[[Call], AsyncIterator[Any]]
Handler = Unary | Stream
Interceptor = Callable[[Handler], Handler]
"""Wraps a handler in another of the same form: a stream in a stream."""


def chained(interceptors: Sequence[Interceptor]) -> Interceptor | None:
    """Several interceptors as one, the first outermost; None where there are none."""
    if not interceptors:
        return None

    def around(handler: Handler) -> Handler:
        for interceptor in reversed(interceptors):
            handler = interceptor(handler)
        return handler

    return around


def as_stream(unary: Unary) -> Stream:
    """A unary handler as a stream of exactly one answer."""

    async def stream(call: Call) -> AsyncIterator[Any]:
        yield await unary(call)

    return stream


def as_unary(stream: Stream) -> Unary:
    """A stream as a unary handler; its call raises `Invalid` unless the stream gives exactly one answer."""

    async def unary(call: Call) -> Any:
        answers = [answer async for answer in stream(call)]
        if len(answers) != 1:
            raise Invalid(f"{call.route or 'the stream'} gave {len(answers)} answers where one was asked for")
        return answers[0]

    return unary


# W3C Trace Context: the version ff is forbidden, and an id of zeros only is invalid
_PARENT = r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})\Z"


def traceparent(parent: str | None = None) -> str:
    """A `traceparent` header: a new span in the parent's trace, or in a new trace where the parent is absent or invalid."""
    # https://www.w3.org/TR/trace-context/: who cannot read its parent starts a new trace; 01 says that it may be sampled
    valid = re.match(_PARENT, parent) if parent else None
    trace, flags = valid.groups() if valid else (secrets.token_hex(16), "01")
    return f"00-{trace}-{secrets.token_hex(8)}-{flags}"


def trace_of(call: Call) -> str:
    """The trace that a call is a part of; one that was given none begins one, and passes it on from here."""
    parent = call.metadata.get("traceparent", "")
    if len(parent.split("-")) < 4:
        parent = call.metadata["traceparent"] = traceparent()
    return parent.split("-")[1]

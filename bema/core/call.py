"""One call, and the one signature of everything callable.

Law: a `Handler` takes a `Call`. Unary stays unary from end to end; a stream is an async iterator from end to end; the
adapters between the two live here and nowhere else.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

from bema.core.access import Principal
from bema.core.errors import Invalid

__all__ = [
    "CURRENT",
    "Call",
    "Handler",
    "Interceptor",
    "Stream",
    "Unary",
    "as_stream",
    "as_unary",
    "chained",
    "traceparent",
]


class Call:
    """One invocation, seen by whoever handles it.

    `arguments` are the decoded arguments by parameter name; `requests` is the incoming stream where the shape has one.
    `metadata` is `str -> str` and travels to every hop, `traceparent` (W3C Trace Context) among it. `deadline` is in
    seconds of the monotonic clock of this process, or None. `principal` is who asks, by the credential of the connection that
    the call came on; None where none was shown. Cancellation arrives as cancellation of the one task that
    drives the call; `stop_generating()` asks politely first, and a stream so ended is marked as cut. `ended` says that it was
    answered: a task that a handler began and left behind keeps the call's metadata, and its deadline no longer.
    """

    __slots__ = (
        "arguments",
        "deadline",
        "ended",
        "id",
        "metadata",
        "peer",
        "principal",
        "requests",
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
    ) -> None:
        self.route = route
        self.arguments = {} if arguments is None else arguments
        self.id = id
        self.metadata = {} if metadata is None else metadata
        self.deadline = deadline
        self.requests = requests
        self.peer = peer
        self.principal = principal
        self.stopped = False
        self.ended = False

    def is_stopped(self) -> bool:
        return self.stopped

    def stop_generating(self) -> None:
        """Ask the handler to end early; it looks at `is_stopped()`."""
        self.stopped = True

    def is_killed(self) -> bool:
        """Whether it is being ended without asking; only what cleans up still runs."""
        return False

    def kill(self) -> None:
        """End it without asking, where somebody drives it."""
        self.stopped = True


CURRENT: ContextVar[Call | None] = ContextVar("bema_call", default=None)
"""The call that the running task answers; calls made on its behalf inherit its deadline and metadata."""

Unary = Callable[[Call], Awaitable[Any]]
Stream = Callable[[Call], AsyncIterator[Any]]
Handler = Unary | Stream
Interceptor = Callable[[Handler], Handler]
"""Stands around a handler, and gives one of the same form: a stream for a stream."""


def chained(interceptors: Sequence[Interceptor]) -> Interceptor | None:
    """All of them as one, the first outermost; None where there is none."""
    if not interceptors:
        return None

    def around(handler: Handler) -> Handler:
        for interceptor in reversed(interceptors):
            handler = interceptor(handler)
        return handler

    return around


def as_stream(unary: Unary) -> Stream:
    """A stream of exactly one answer."""

    async def stream(call: Call) -> AsyncIterator[Any]:
        yield await unary(call)

    return stream


def as_unary(stream: Stream) -> Unary:
    """The only answer of a stream; `Invalid` when there is none or a second one."""

    async def unary(call: Call) -> Any:
        answers = [answer async for answer in stream(call)]
        if len(answers) != 1:
            raise Invalid(f"{call.route or 'the stream'} gave {len(answers)} answers where one was asked for")
        return answers[0]

    return unary


_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})\Z")


def traceparent(parent: str | None = None) -> str:
    """A W3C `traceparent`: the parent's trace with a new span, or a new trace (https://www.w3.org/TR/trace-context/)."""
    valid = _PARENT.match(parent) if parent else None
    trace, flags = valid.groups() if valid else (secrets.token_hex(16), "01")
    return f"00-{trace}-{secrets.token_hex(8)}-{flags}"

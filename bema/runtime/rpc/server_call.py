"""ServerCall: a call while it is answered, with what its connection keeps beside what its handler sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any, Final, Protocol

from bema.core import durable
from bema.core.access import Principal
from bema.core.call import Call
from bema.core.errors import BemaError, StreamCut, Unavailable
from bema.runtime.rpc.admission import Admission
from bema.runtime.rpc.flow_control import Inflow, Outflow
from bema.wire.rpc import cursors, frames

GIVEN_UP: Final = Unavailable("the caller gave the call up")
HANDED_OVER: Final = StreamCut("the instance stops, and hands the stream over", code="handed_over")


class CallConnection(Protocol):
    """What a call, and the server that ends it, need of the connection it came on."""

    peer: str
    principal: Principal | None
    mark: str
    closed: bool
    newest: int
    loop: asyncio.AbstractEventLoop
    calls: dict[int, ServerCall]

    def end(self, call: ServerCall, reason: BemaError) -> None:
        """End a running or waiting call, and tell its caller why unless the caller gave it up."""

    def go_away(self) -> asyncio.Future[None]:
        """Tell the caller to send no more calls; done when none that it sent before can still be on its way."""

    def put(self, ident: int, kind: int, body: Any) -> None:
        """Send one message with the next write."""

    def close(self) -> None:
        """Close the connection. Safe to call twice."""


class ServerCall(Call):
    """A call while this process answers it."""

    # defaults of the class, not of each instance: most calls never change them, and a call makes one of these
    requests: AsyncIterator[Any] | None = None
    inflow: Inflow | None = None
    outflow: Outflow | None = None
    reason: BemaError | None = None  # why we end it: told to the caller, unless it is `GIVEN_UP`
    task: asyncio.Task[None] | None = None  # None while it waits for admission
    admission: Admission | None = None  # what bounds how many run
    began: float | None = None  # when it was admitted
    continues: bool = False  # its caller goes on elsewhere when we end it with `HANDED_OVER`
    started: float | None = None  # when its handler was called, where the log watches
    outcome = "ok"  # for the log
    _stopped = False
    _wanted_id = ""
    _resume: str | None = None  # the header as it came, once the metadata was read
    _ending: asyncio.Future[None] | None = None  # made where somebody waits for the stop

    def __init__(self, conn: CallConnection, ident: int, route: str, headers: bytes, deadline: float | None) -> None:
        self.conn = conn
        self.ident = ident
        self.route = route
        self.headers = headers
        self.deadline = deadline

    @property
    def id(self) -> str:  # type: ignore[override]
        return f"{self.conn.mark}-{self.ident:x}"

    @property
    def peer(self) -> str:  # type: ignore[override]
        return self.conn.peer

    @property
    def principal(self) -> Principal | None:  # type: ignore[override]
        return self.conn.principal

    @property
    def stopped(self) -> bool:
        return self._stopped

    @stopped.setter
    def stopped(self, stopped: bool) -> None:
        self._stopped = stopped
        if stopped:
            self._tell()

    @property
    def ended(self) -> bool:  # type: ignore[override]
        # asked for by the few calls that outlive their handler, where a mark would be set by all
        return self.conn.calls.get(self.ident) is not self

    def is_killed(self) -> bool:
        return self.reason is not None

    def kill(self) -> None:
        self.conn.end(self, StreamCut("the handler ended the call"))

    async def until_stopped(self) -> None:
        """Wait until the call is asked to end, or has ended."""
        if self._ending is None:
            # made for the few that wait: a future for each call would cost as much as its headers
            self._ending = self.conn.loop.create_future()
            task = self.task or asyncio.current_task()  # an eager task is not told of before it waits
            if task is not None:
                task.add_done_callback(lambda task: self._tell())
        if self._stopped or self.is_killed():
            self._tell()
        await asyncio.shield(self._ending)

    def _tell(self) -> None:
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(None)

    # decoded only where a handler looks: most never do
    @cached_property
    def metadata(self) -> dict[str, str]:  # type: ignore[override]
        found = frames.read_metadata(self.headers)
        # it is about this stream alone, and metadata goes on to whatever the handler calls
        self._resume = found.pop(cursors.HEADER, None)
        self._wanted_id = found.pop(durable.HEADER, "")
        return found

    def wanted_id(self) -> str:
        """The id that the caller gave its call, where it is durable; empty for none."""
        return self._wanted_id if self.metadata is not None else ""

    def asks_for_cursors(self) -> bool:
        """Whether the caller can continue the stream, and wants a cursor with each item."""
        return self.metadata is not None and self._resume is not None

    @cached_property
    def resume(self) -> Any:
        return cursors.read_header(self._resume) if self.asks_for_cursors() and self._resume else None

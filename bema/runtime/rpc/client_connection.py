"""ClientConnection: the caller's end of a connection, which sends requests and hands out their answers.

Laws: the reader sets a unary answer on its future itself, and a stream gets its items as lists, so that no task switch stands
between. A peer that was silent for a heartbeat gets no new calls, but is not taken for dead: running calls live to their
deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from typing import Any, Final

from bema.core.errors import (
    BemaError,
    DeadlineExceeded,
    Disconnected,
    Invalid,
    ProtocolError,
    StreamCut,
    TooLarge,
    Unavailable,
)
from bema.core.limits import DEFAULTS, Limits
from bema.runtime.rpc.connection import Connection
from bema.runtime.rpc.flow_control import Inflow, Outflow
from bema.runtime.tasks import Tasks
from bema.wire.rpc import calls, failures, frames
from bema.wire.values import codecs
from bema.wire.values.codecs import Encode

BEATS: Final = 4  # looks per heartbeat: a peer that says nothing until the third of them is silent before it is over

Pending = tuple["asyncio.Future[bytes]", float]


class Answered(Exception):
    """The callee answered with a failure. The client, which knows the endpoint's declared errors, rebuilds it."""

    def __init__(self, failure: failures.Failure) -> None:
        self.failure = failure


class StreamLost(StreamCut):
    """The connection broke under a stream that had begun: another instance may continue it, where it is resumable."""


class ClientConnection(Connection):
    """Sends requests and gives out answers. `usable`: greeted, open, not going away, and heard within a heartbeat."""

    __slots__ = (
        "_every",
        "_heartbeat_timer",
        "_hello",
        "_inputs",
        "_quiet",
        "_sending",
        "calls",
        "changed",
        "going",
        "ready",
        "silent",
        "usable",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, token: str, name: str = "", limits: Limits = DEFAULTS) -> None:
        super().__init__(loop, limits)
        self.calls: dict[int, Pending | Inflow] = {}
        self.ready: asyncio.Future[None] = loop.create_future()
        self.usable = False
        self.going = False
        self.silent = False
        self.changed: asyncio.Future[None] = loop.create_future()
        self._quiet = 0
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._every = limits.rpc_heartbeat / BEATS
        self._hello = self.hello(token=token, name=name)
        self._inputs = Tasks("input streams")
        self._sending: dict[int, Outflow] = {}

    # greeting, heartbeat, end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.write(self._hello)

    def greeted(self, hello: frames.Hello) -> None:
        self.usable = True
        self._heartbeat_timer = self.loop.call_later(self._every, self._heartbeat)
        if not self.ready.done():
            self.ready.set_result(None)

    def _heartbeat(self) -> None:
        self._heartbeat_timer = self.loop.call_later(self._every, self._heartbeat)
        if self.heard:
            self.heard = False
            self._quiet = 0
            return
        self._quiet += 1
        self.put(0, frames.PING, None)
        # who has merely nothing to say answers the ping before; only who does not is passed over
        if self._quiet >= BEATS - 1 and not self.silent:
            self.silent = True
            self.usable = False

    def hear(self) -> None:
        """Note that the peer spoke; one that was silent may get calls again."""
        self.heard = True
        if self.silent:
            self.silent = False
            self.usable = not (self.going or self.closed)
            self._tell()

    def _tell(self) -> None:
        changed, self.changed = self.changed, self.loop.create_future()
        if not changed.done():
            changed.set_result(None)

    def close(self) -> None:
        self.usable = False
        super().close()

    def lost(self, error: BemaError) -> None:
        self.usable = False
        if self._heartbeat_timer is not None:
            self._heartbeat_timer.cancel()
        if not self.ready.done():
            self.ready.set_exception(error)
        # taken away first: who is told may call again at once, on another connection
        pending, self.calls = self.calls, {}
        for ident, entry in pending.items():
            self._settle(entry, self._loss(ident, entry, error))
        for task in tuple(self._inputs._tasks):
            task.cancel()
        self._tell()

    def _loss(self, ident: int, entry: Pending | Inflow, error: BemaError) -> BemaError:
        lost = "the connection was lost"
        why = "" if error.message == lost else f": {error.message}"
        # still in our own buffer: no byte of it left, so that it certainly did not run
        if ident > self.written:
            return Unavailable(f"{lost} before the call was sent{why}")
        if isinstance(entry, Inflow) and entry.began:
            return StreamLost(f"{lost} before the stream ended{why}")
        return Disconnected(f"{lost} after the call was sent{why}")

    @staticmethod
    def _settle(entry: Pending | Inflow, error: BaseException, *, at_once: bool = False) -> None:
        if isinstance(entry, Inflow):
            entry.finish(error, at_once=at_once)
        elif not entry[0].done():
            entry[0].set_exception(error)

    # deadlines

    def deadlines(self) -> Iterable[float]:
        """The deadlines of the unanswered calls."""
        return (entry.deadline if isinstance(entry, Inflow) else entry[1] for entry in self.calls.values())

    def expire(self, now: float) -> None:
        for ident, entry in tuple(self.calls.items()):
            if (entry.deadline if isinstance(entry, Inflow) else entry[1]) <= now:
                # the peer counts the same time, and may be late, or stopped: the caller does not
                # wait for it
                self.cancel(ident)
                self._settle(entry, DeadlineExceeded("the call ran out of its time"), at_once=True)

    # requests

    def ask(
        self, kind: int, route: str, payload: bytes, deadline: float, remaining: float | None, headers: bytes
    ) -> tuple[int, asyncio.Future[bytes]]:
        """Send a request for one answer; the future gets its payload, or `Answered` or a loss as exception.

        `remaining` is the time until the deadline, None where there is none.
        """
        ident = self._request(kind, route, payload, deadline, remaining, headers)
        future: asyncio.Future[bytes] = self.loop.create_future()
        self.calls[ident] = (future, deadline)
        return ident, future

    def open(
        self, kind: int, route: str, payload: bytes, deadline: float, remaining: float | None, headers: bytes
    ) -> tuple[int, Inflow]:
        """Send a request for a stream."""
        ident = self._request(kind, route, payload, deadline, remaining, headers)
        inflow = self.calls[ident] = Inflow(self, ident, deadline)
        return ident, inflow

    def _request(
        self, kind: int, route: str, payload: bytes, deadline: float, remaining: float | None, headers: bytes
    ) -> int:
        if remaining is not None and deadline < self.next_due:
            self.watch(deadline)
        size = self.size + len(payload) + len(headers)
        if size >= self.full:
            return self._request_full(kind, route, payload, remaining, headers)
        self.size = size
        self.newest = ident = self.newest + 1
        self.out += (ident, kind, (route, remaining, headers, payload))
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self._turn)
        return ident

    def _request_full(self, kind: int, route: str, payload: bytes, remaining: float | None, headers: bytes) -> int:
        size = len(payload)
        if size >= self.sizes.large:
            if size > self.largest:
                raise _too_large(size, self.largest)
            self.flush()
            self.newest = ident = self.newest + 1
            self.put_large(ident, kind, (route, remaining, headers, b""), payload)
        else:
            self.newest = ident = self.newest + 1
            self.out += (ident, kind, (route, remaining, headers, payload))
            self.flush()
        return ident

    def send_input(self, ident: int, requests: AsyncIterable[Any], encode: Encode) -> None:
        """Send a stream of requests beside the call, in a task this connection owns."""
        outflow = self._sending[ident] = Outflow(self, ident, frames.INPUT)
        self._inputs.start(self._pump(ident, outflow, requests, encode), name=f"input of call {ident}")

    async def _pump(self, ident: int, outflow: Outflow, requests: AsyncIterable[Any], encode: Encode) -> None:
        try:
            async for request in requests:
                if ident not in self.calls:
                    return
                try:
                    payload = encode(request)
                except (Invalid, *codecs.UNFIT) as error:
                    raise codecs.refusal(error, "an item of the stream that is sent", request) from error
                if outflow.push(payload):
                    await outflow.turn()
            if ident in self.calls:
                self.put(ident, frames.INPUT_END, None)
        except Exception as error:  # noqa: BLE001 - what the caller's own stream raises is the caller's
            entry = self.calls.get(ident)
            if entry is not None:
                self.cancel(ident)
                self._settle(entry, error)
        finally:
            self._sending.pop(ident, None)
            close = getattr(requests, "aclose", None)
            if close is not None:
                await close()

    def cancel(self, ident: int) -> None:
        """Give a call up: its handler is cancelled, late messages are dropped."""
        if self.calls.pop(ident, None) is not None and not self.closed:
            self.put(ident, frames.CANCEL, None)

    def kill(self, ident: int) -> None:
        """Give a call up and tell whoever waits for it."""
        if (entry := self.calls.get(ident)) is not None:
            self.cancel(ident)
            self._settle(entry, BemaError("the call was killed", code="cancelled"), at_once=True)

    def stop(self, ident: int) -> None:
        """Ask a stream's handler to end early."""
        if ident in self.calls and not self.closed:
            self.put(ident, frames.STOP, None)

    # messages

    def batch(self, messages: list[Any]) -> None:
        pending = self.calls
        for ident, kind, body in frames.messages(messages):
            if kind == frames.ANSWER:
                entry = pending.pop(ident, None)
                if type(entry) is tuple:
                    # its caller may have been cancelled in this very turn
                    if not entry[0].done():
                        entry[0].set_result(body)
                elif entry is not None:
                    calls.step(calls.CallState.MANY, kind, calls.CallSide.CALLEE)
                else:
                    self._late(ident, kind, body)
            elif kind == frames.ITEM:
                entry = pending.get(ident)
                if type(entry) is Inflow:
                    entry.take(body)
                elif entry is not None:
                    calls.step(calls.CallState.ONE, kind, calls.CallSide.CALLEE)
                else:
                    self._late(ident, kind, body)
            else:
                self._other(ident, kind, body)

    def _other(self, ident: Any, kind: Any, body: Any) -> None:
        if type(kind) is not int or type(ident) is not int:
            raise ProtocolError(f"a message bears the id {ident!r} and the kind {kind!r}")
        if ident == 0:
            self._on_connection(kind, body)
            return
        entry = self.calls.get(ident)
        if entry is None:
            self._late(ident, kind, body)
        elif kind == frames.END and isinstance(entry, Inflow):
            del self.calls[ident]
            entry.finish(StreamCut("the stream was stopped before its end") if body else None)
        elif kind == frames.ERROR:
            del self.calls[ident]
            self._settle(entry, Answered(failures.read_failure(body)))
        elif kind == frames.CREDIT:
            size = self.credited(body)
            if (outflow := self._sending.get(ident)) is not None:
                outflow.credited(size)
        else:
            state = calls.CallState.MANY if isinstance(entry, Inflow) else calls.CallState.ONE
            calls.step(state, kind, calls.CallSide.CALLEE)

    def _late(self, ident: Any, kind: int, body: Any) -> None:
        """A message for a call that has ended here already."""
        if type(ident) is not int or not 0 < ident <= self.newest:
            calls.step(calls.CallState.IDLE, kind, calls.CallSide.CALLEE)
        calls.step(calls.CallState.CLOSED, kind, calls.CallSide.CALLEE)
        if kind == frames.ITEM:
            self.release(frames.payload_size(body))
        elif kind == frames.CREDIT:
            self.credited(body)

    def _on_connection(self, kind: int, body: Any) -> None:
        if kind == frames.GOAWAY:
            self.going = True
            self.usable = False
            self._tell()
        elif kind == frames.CREDIT:
            self.credited(body)
        elif kind == frames.PING:
            self.put(0, frames.PONG, None)
        elif kind != frames.PONG:
            raise ProtocolError(f"a message of kind {kind} bears no call's id")


def _too_large(size: int, largest: int) -> TooLarge:
    return TooLarge(
        f"a message of {size} bytes is larger than the limit of {largest} bytes (rpc_message)", limit=largest, size=size
    )

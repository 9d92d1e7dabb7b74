"""ServerConnection: the callee's end of a connection, with one task per call from request to answer.

Laws: a call ends in exactly one of answer, end or error, unless its caller has gone or cancelled it. Whatever a handler
raises, or returns that cannot travel, is the failure of that one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import inspect
import logging
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any, Final

from bema.core.access import Principal
from bema.core.call import CURRENT
from bema.core.errors import BemaError, DeadlineExceeded, Denied, Disconnected, Invalid, ProtocolError
from bema.runtime import forks
from bema.runtime.rpc import blame
from bema.runtime.rpc.connection import Connection
from bema.runtime.rpc.flow_control import Inflow, Outflow
from bema.runtime.rpc.routes import Route, RouteTable
from bema.runtime.rpc.server_call import GIVEN_UP, ServerCall
from bema.wire.rpc import calls, failures, frames
from bema.wire.values import codecs

# from 3.12 on a call whose handler does not wait is answered without a turn of the loop
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
_task: Callable[..., asyncio.Task[None]] = partial(asyncio.Task, **_EAGER) if _EAGER else asyncio.Task

_log = logging.getLogger("bema.service")

BACKLOG: Final = 8 * 1024 * 1024  # bytes of answers that may wait for a caller before it is read no further


class ServerConnection(Connection):
    """Reads requests, runs handlers, sends what they give."""

    __slots__ = ("_settled", "calls", "deaf", "mark", "peer", "principal", "routes", "server")

    def __init__(self, loop: asyncio.AbstractEventLoop, server: RouteTable[ServerConnection]) -> None:
        super().__init__(loop, server.limits)
        self.server = server
        self.routes = server.routes
        self.calls: dict[int, ServerCall] = {}
        self.peer = ""
        self.principal: Principal | None = None
        self.mark = secrets.token_hex(8)  # the part of a call's id that no other connection has
        self.deaf = False
        self._settled: asyncio.Future[None] | None = None  # of `go_away`

    # greeting and end

    def greeted(self, hello: frames.Hello) -> None:
        # not `!=`: its time would tell how much of a guess was right
        if not hmac.compare_digest(hello.token.encode(), self.server.token.encode()):
            self.put(0, frames.ERROR, failures.pack_failure(Denied("the token is not this instance's"), refused=True))
            # what the peer sent behind its greeting may have been read already, and must not be answered
            self.received = lambda messages: None
            self.close()
            return
        self.peer = hello.name
        self.principal = self.server.credentials.principal(hello.token)
        self.server.connections.add(self)
        if self.transport is not None:
            self.transport.write(self.hello(name=self.server.name))
        if self.server.draining:
            self.put(0, frames.GOAWAY, None)

    def go_away(self) -> asyncio.Future[None]:
        # messages keep their order: the answer to a ping comes behind every call that was sent before the GOAWAY was read,
        # and each of these is refused as never run; a connection that closed earlier would leave their callers in doubt
        self._settled = self.loop.create_future()
        self.put(0, frames.GOAWAY, None)
        self.put(0, frames.PING, None)
        return self._settled

    def _settle(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def lost(self, error: BemaError) -> None:
        self._settle()
        for call in tuple(self.calls.values()):
            self.give_up(call)
        self.server.connection_lost(self)

    def _pause_reading(self) -> None:
        """Stop reading a caller that sends requests and does not read its answers: they would pile up here."""
        if self.transport is not None and self.transport.get_write_buffer_size() > BACKLOG:
            self.transport.pause_reading()
            self.deaf = True

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.deaf and self.transport is not None and not self.closed:
            self.deaf = False
            self.transport.resume_reading()

    # deadlines

    def deadlines(self) -> Iterable[float]:
        return (call.deadline for call in self.calls.values() if call.deadline is not None and call.reason is None)

    def expire(self, now: float) -> None:
        for call in tuple(self.calls.values()):
            if call.deadline is not None and call.deadline <= now:
                self.end(call, DeadlineExceeded(f"{call.route} ran out of its time"))

    # messages

    def batch(self, messages: list[Any]) -> None:
        # looked at once per read, before its requests make more answers
        if self.paused is not None and not self.deaf:
            self._pause_reading()
        for ident, kind, body in frames.messages(messages):
            if kind == frames.UNARY or kind == frames.STREAM:
                self._request(ident, kind, body)
            else:
                self._other(ident, kind, body)

    def _request(self, ident: Any, kind: int, body: Any) -> None:
        # ids grow, so that a late message for a call can be told from one for a call that never was
        if type(ident) is not int or ident <= self.newest:
            raise ProtocolError(f"a request bears the id {ident!r} after {self.newest}")
        self.newest = ident
        try:
            name, remaining, headers, payload = body
            route = self.routes.get(name)
            deadline = None if remaining is None else monotonic() + remaining
        except (TypeError, ValueError) as error:
            frames.read_request(body)  # says what is wrong
            raise ProtocolError("a request cannot be read") from error
        # the usual call passes one test here; which bound it broke is looked into where it broke
        # one
        server = self.server
        fits = type(headers) is bytes and len(headers) <= server.most_headers and type(payload) in frames.BINARY
        if route is None or not fits or len(self.calls) >= server.most:
            frames.read_request(body)
            self._refuse(ident, server.refusal(self, name, len(headers)))
            return
        admission = route.admission
        if admission is not None and admission.full():
            self._refuse(ident, admission.refusal())
            return
        if deadline is not None and deadline < self.next_due:
            self.watch(deadline)
        call = self.calls[ident] = ServerCall(self, ident, name, headers, deadline)
        if admission is not None:
            call.admission = admission
            admission.enter(call, partial(self._start, call, route, kind, payload))
        elif kind == frames.UNARY and not route.streams_in:
            # as `_start` does: most calls come by here, and a function more is a part of their cost
            call.task = _task(self._unary(call, route, payload), loop=self.loop, name=name)
            if _EAGER and call.task.done():
                call.task = None
        else:
            self._start(call, route, kind, payload)

    def _start(self, call: ServerCall, route: Route, kind: int, payload: bytes) -> None:
        if route.streams_in or kind not in (frames.UNARY, frames.STREAM):
            self._open_input(call, route, kind)
        drive = self._unary if kind in (frames.UNARY, frames.COLLECT) else self._stream
        call.task = _task(drive(call, route, payload), loop=self.loop, name=call.route)
        if _EAGER and call.task.done():
            call.task = None

    def _refuse(self, ident: int, error: BemaError) -> None:
        self.put(ident, frames.ERROR, failures.pack_failure(error, refused=True))

    def _open_input(self, call: ServerCall, route: Route, kind: int) -> None:
        call.inflow = inflow = Inflow(self, call.ident)
        if kind in (frames.UNARY, frames.STREAM):
            inflow.finish()
        call.requests = inflow.items(route.decode_request)

    def _other(self, ident: Any, kind: Any, body: Any) -> None:
        if type(kind) is not int or type(ident) is not int:
            raise ProtocolError(f"a message bears the id {ident!r} and the kind {kind!r}")
        if ident == 0:
            self._on_connection(kind, body)
        elif kind in frames.REQUESTS:
            self._request(ident, kind, body)
        elif (call := self.calls.get(ident)) is not None and call.reason is None:
            self._on_call(call, kind, body)
        else:
            state = calls.CallState.CLOSED if ident <= self.newest else calls.CallState.IDLE
            calls.step(state, kind, calls.CallSide.CALLER)
            if kind == frames.INPUT:
                self.release(frames.payload_size(body))
            elif kind == frames.CREDIT:
                self.credited(body)

    def _on_connection(self, kind: int, body: Any) -> None:
        if kind == frames.PING:
            self.put(0, frames.PONG, None)
        elif kind == frames.PONG:
            self._settle()
        elif kind == frames.CREDIT:
            self.credited(body)
        elif kind != frames.GOAWAY:
            raise ProtocolError(f"a message of kind {kind} bears no call's id")

    def _on_call(self, call: ServerCall, kind: int, body: Any) -> None:
        if kind == frames.CREDIT:
            size = self.credited(body)
            if call.outflow is not None:
                call.outflow.credited(size)
        elif kind == frames.CANCEL:
            self.give_up(call)
        elif kind == frames.STOP:
            call.stopped = True
        elif kind == frames.INPUT and call.inflow is not None and not call.inflow.ended:
            call.inflow.take(body)
        elif kind == frames.INPUT_END and call.inflow is not None and not call.inflow.ended:
            call.inflow.finish()
        else:
            calls.step(
                calls.CallState.ONE if call.outflow is None else calls.CallState.MANY, kind, calls.CallSide.CALLER
            )

    # ending

    def give_up(self, call: ServerCall) -> None:
        """End a call whose caller has gone or wants no answer."""
        self.end(call, GIVEN_UP)

    def end(self, call: ServerCall, reason: BemaError) -> None:
        """Cancel the one task that drives a call; `reason` goes to the caller unless it gave the call up."""
        if call.reason is None:
            call.reason = reason
            if call.task is None:
                self._never_ran(call)
                return
            if inspect.getcoroutinestate(call.task.get_coro()) == inspect.CORO_CREATED:  # type: ignore[arg-type]
                call.task.add_done_callback(lambda task: self._never_ran(call))
            call.task.cancel()

    def _never_ran(self, call: ServerCall) -> None:
        # a task that is cancelled before its first step runs none of its code, its `finally` not either
        if call.ident in self.calls:
            self._cancelled(call)
            self._done(call)

    def _failed(self, call: ServerCall, error: BaseException) -> None:
        # also of calls that are not watched: what fails is worth its line when the others are only
        # counted
        if self.server.log is not None:
            self.server.log.failed(call, error, given_up=call.reason is GIVEN_UP)
        if call.reason is not GIVEN_UP and not self.closed:
            try:
                self.put_payload(call.ident, frames.ERROR, failures.pack_failure(error))
            except BemaError as too_large:
                self.put(call.ident, frames.ERROR, failures.pack_failure(too_large))

    def forked(self) -> None:
        """In a forked child: a handler that comes back has come to its end, and answers nobody."""
        # shadows the methods on this object alone, so that a call of the parent pays nothing for it
        self.__dict__.update(
            _raised=lambda call, error: forks.leave(error),
            _done=lambda call: forks.leave(),
        )

    def _raised(self, call: ServerCall, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._cancelled(call)
        else:
            told = blame.as_told(error)
            self._failed(call, told)
            self._report(call, error, met=told is not error)
        # SystemExit is its caller's too: one call's handler does not end the others' process
        # Ctrl-C is the program's; the loop ends now, so that what its caller is told must leave
        # first
        if isinstance(error, KeyboardInterrupt):
            self.flush()
            raise error

    def _report(self, call: ServerCall, error: BaseException, *, met: bool) -> None:
        """Log what nobody declared, with its traceback: callers are told of it, and at the HTTP door they get no more."""
        route = self.routes.get(call.route)
        expected = () if route is None else route.spec.facts.get("raises", ())
        if met or not isinstance(error, (BemaError, *expected)):
            # filters and handlers are the user's, too
            with contextlib.suppress(Exception):
                _log.error("%s failed", call.route, exc_info=error)

    def _cancelled(self, call: ServerCall) -> None:
        self._failed(call, call.reason or _cancelled_by_whom())

    def _done(self, call: ServerCall) -> None:
        del self.calls[call.ident]
        call.task = None  # the task's context holds the call: a cycle would wait for the collector
        if call.inflow is not None:
            call.inflow.close()
        if call.admission is not None:
            call.admission.leave(call)
        if self.closed or self.server.draining:
            self.server.call_ended(self)

    # the two drivers

    async def _unary(self, call: ServerCall, route: Route, payload: bytes) -> None:
        # never reset: the task has a context of its own, which ends with it
        CURRENT.set(call)
        try:
            try:
                call.arguments = route.decode(payload)
            except codecs.UNFIT as error:
                raise codecs.refusal(error, f"the arguments of {call.route}") from None
            answer = await route.unary(call)
            try:
                answer = route.encode(answer)
            except (Invalid, *codecs.UNFIT) as error:
                raise codecs.bad_answer(error, f"the answer of {call.route}", answer) from error
            # a handler may swallow its cancellation and return: its caller was told otherwise
            # already
            if call.reason is None:
                self.put_payload(call.ident, frames.ANSWER, answer)
            else:
                self._cancelled(call)  # and the handler went on to its end
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything; it is its caller's
            self._raised(call, error)
        finally:
            self._done(call)

    async def _stream(self, call: ServerCall, route: Route, payload: bytes) -> None:
        CURRENT.set(call)
        try:
            try:
                call.arguments = route.decode(payload)
            except codecs.UNFIT as error:
                raise codecs.refusal(error, f"the arguments of {call.route}") from None
            call.outflow = Outflow(self, call.ident, frames.ITEM)
            call.continues = route.spec.resumable and call.asks_for_cursors()
            answers = route.stream(call)
            try:
                await self._pump(answers, call, route)
            finally:
                close = getattr(answers, "aclose", None)
                if close is not None:
                    await close()
            if call.reason is None:
                self.put(call.ident, frames.END, call.stopped)
            else:
                self._cancelled(call)
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything; it is its caller's
            self._raised(call, error)
        finally:
            self._done(call)

    async def _pump(self, answers: AsyncIterator[Any], call: ServerCall, route: Route) -> None:
        assert call.outflow is not None
        push, turn = call.outflow.push, call.outflow.turn
        encode = route.encode_with_cursor if call.continues else route.encode_item
        async for answer in answers:
            try:
                payload = encode(answer)
            except (Invalid, *codecs.UNFIT) as error:
                raise codecs.bad_answer(error, f"an item of {call.route}", answer) from error
            if push(payload):
                await turn()


def _cancelled_by_whom() -> BaseException:
    """The error for a call whose task was cancelled by something other than its connection."""
    # `asyncio.run` cancels every task when it ends its loop; `cancelling()` tells that from a handler that cancels itself
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return Disconnected("the call was cancelled in its own process, which may be ending")
    return asyncio.CancelledError("the handler cancelled itself")

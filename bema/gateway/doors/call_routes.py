"""CallRoutes: durable calls over HTTP: a `POST` that need not wait for its end, and `calls/ID` with its status, result and events.

Laws: a call that was accepted has an address before its end, which every answer about it names. Whatever a direct call would
have been answered, its result is. A client that leaves ends nothing but its wait.
"""

from __future__ import annotations

import asyncio
import math
from time import time_ns
from typing import Any

import msgspec

from bema.core.errors import BemaError, DeadlineExceeded, Disconnected, Invalid, NotFound, Unavailable
from bema.gateway.doors.durable_calls import CallChange, CallOutcome, CallPosition, DurableCalls
from bema.gateway.doors.event_stream import EventStream
from bema.gateway.doors.json_answers import answer_json, told
from bema.gateway.doors.preferences import Preferences, idempotency_key
from bema.gateway.http.answers import answer, content
from bema.gateway.http.exchange import Exchange
from bema.runtime.tasks import before

__all__ = ["CALLS", "CallRoutes"]

CALLS = "calls/"
"""What the paths of calls begin with, below the URL of a service: no endpoint has a slash in its name."""
_STATUS = 2.0  # seconds that an accepted call waits to be shown with its state
_LATER = 60.0  # seconds at most until a client is to look again


_END: Any = object()


class _Leaving(Exception):
    """The listener drains."""


class CallRoutes:
    """Answers requests for durable endpoints, and for calls by their id."""

    def __init__(self, calls: DurableCalls) -> None:
        self._calls = calls

    async def begin(
        self, exchange: Exchange, deployment: str, route: str, arguments: dict[str, Any], timeout: float | None
    ) -> None:
        """Make a call, and answer with its end or, where the client would rather not wait for that, with its address."""
        wanted = Preferences.of(exchange.head)
        metadata = {"traceparent": exchange.trace}
        key = idempotency_key(exchange.head)
        id = await self._calls.begin(deployment, route, arguments, key=key, metadata=metadata)
        where = _url(exchange, id)
        wait = wanted.seconds()
        patient = wait is None or (timeout is not None and timeout < wait)
        found = await self._waited(deployment, id, where, timeout if patient else wait, patient=patient)
        if found is None and patient:
            said = f"call {id} did not end within {timeout:g} s; it goes on"
            raise DeadlineExceeded(said, call=id, location=where)
        applied = wanted.applied(accepted=found is None)
        headers = [(b"preference-applied", applied.encode())] if applied else []
        if found is None:
            accepted = await self._accepted(exchange, deployment, id)
            answer_json(exchange, accepted, 202, *headers, _location(where))
            return
        # RFC 9110 8.7: what is answered can be had there again
        answer_json(exchange, _value(found), 200, *headers, (b"content-location", f"{where}/result".encode()))

    async def _waited(
        self, deployment: str, id: str, where: str, seconds: float | None, *, patient: bool
    ) -> CallOutcome | None:
        """The end of an accepted call; None where it takes longer, or where nobody has it and the client is not patient."""
        try:
            return await self._ended(deployment, id, seconds)
        except (Unavailable, Disconnected, DeadlineExceeded) as error:
            if not patient:
                return None
            fix = f"GET {where}/result gives its end."
            raise Disconnected(f"call {id} was accepted; {error.message}", fix=fix, call=id, location=where) from error

    async def serve(self, exchange: Exchange, deployment: str, path: str) -> None:
        """Answer a request for `calls/ID`, `calls/ID/result` or `calls/ID/events`."""
        id, _, page = path.removeprefix(CALLS).partition("/")
        if page not in ("", "result", "events"):
            raise NotFound(f"a call has no {page!r}", fix="It has itself, result and events.")
        methods = (b"GET", b"HEAD") if page else (b"GET", b"HEAD", b"DELETE")
        if exchange.method not in methods:
            allowed = b", ".join(methods).decode()
            raise Invalid(f"{path} takes {allowed}", code="method_not_allowed", allow=allowed)
        # to its end although nobody wants it: what is left would be the next request's head
        await exchange.whole_body()
        if page == "result":
            await self._result(exchange, deployment, id)
        elif page == "events" and exchange.method == b"GET":
            await self._events(exchange, deployment, id)
        elif exchange.method == b"DELETE":
            said = await self._calls.cancel(deployment, id)
            over = said["state"] in ("done", "failed", "cancelled")
            answer_json(exchange, _linked(exchange, said), 200 if over else 202)
        else:
            answer_json(exchange, _linked(exchange, await self._calls.status(deployment, id)))

    async def _result(self, exchange: Exchange, deployment: str, id: str) -> None:
        wanted = Preferences.of(exchange.head)
        # who asks for the result of a call that runs is told so, unless it says that it waits
        found = await self._ended(deployment, id, wanted.wait or 0)
        # it may have ended this moment, and is looked at once at least
        if found is None and (found := await self._calls.outcome(deployment, id, waits=False)) is None:
            said = await self._calls.status(deployment, id)
            headers = _location(_url(exchange, id)), (b"retry-after", b"%d" % _again(said))
            answer_json(exchange, _linked(exchange, said), 202, *headers)
            return
        answer_json(exchange, _value(found))

    async def _events(self, exchange: Exchange, deployment: str, id: str) -> None:
        last = exchange.head.header(b"last-event-id") or b""
        changes = self._calls.follow(deployment, id, CallPosition.read(last.decode("latin-1")))
        try:
            # before the head: what cannot be followed has the status of its error
            first = await anext(changes)
        except StopAsyncIteration:
            # it has ended, and the client was told all: 204 is how a server ends the attempts of an EventSource
            raw = answer(204, [*exchange.timing], b"", exchange.trace_id, close=not exchange.keeps())
            exchange.begin_answer(raw, 204)
            exchange.finish()
            return
        events = EventStream(exchange)
        try:
            await self._send(exchange, events, first)
            while (change := await before(exchange.leaving, anext(changes, _END), _Leaving)) is not _END:
                await self._send(exchange, events, change)
            await events.send(b"{}", event="end")
        except _Leaving:
            pass  # no end: its client comes again with the last id
        except BemaError as error:
            await events.send(content(error, exchange.trace_id).rstrip(), event="error")
        finally:
            await changes.aclose()
        events.end()

    async def _send(self, exchange: Exchange, events: EventStream, change: CallChange | None) -> None:
        if change is None:
            await events.beat()
            return
        data = _linked(exchange, change.data) if change.kind == "state" else change.data
        await events.send(msgspec.json.encode(data), event=change.kind, id=str(change.at))

    async def _ended(self, deployment: str, id: str, seconds: float | None) -> CallOutcome | None:
        """How a call ended within so many seconds (None: however long); None where it goes on, and for 0 seconds."""
        if seconds is not None and seconds <= 0:
            return None
        waiting = asyncio.ensure_future(self._calls.outcome(deployment, id))
        try:
            await asyncio.wait({waiting}, timeout=seconds)
            return waiting.result() if waiting.done() else None
        finally:
            waiting.cancel()

    async def _accepted(self, exchange: Exchange, deployment: str, id: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_STATUS):
                return _linked(exchange, await self._calls.status(deployment, id))
        except (TimeoutError, BemaError):  # its owner went just now; that it was accepted stands
            return _linked(exchange, {"id": id})


def _url(exchange: Exchange, id: str) -> str:
    return f"{exchange.to.prefix.decode()}/{CALLS}{id}"


def _location(where: str) -> tuple[bytes, bytes]:
    return b"location", where.encode()


def _value(found: CallOutcome) -> Any:
    if found.failure is not None:
        raise told(found.failure) from None
    return found.value


def _linked(exchange: Exchange, said: dict[str, Any]) -> dict[str, Any]:
    where = _url(exchange, said["id"])
    return {**said, "url": where, "result": f"{where}/result", "events": f"{where}/events"}


def _again(said: dict[str, Any]) -> int:
    """Seconds after which a client is to look again: a call that sleeps has nothing to tell before it is due."""
    left: float = (said.get("due", 0) - time_ns() // 1000) / 1_000_000
    return math.ceil(min(max(left, 1.0), _LATER))

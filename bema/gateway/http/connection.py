"""HttpConnection: one client's connection, with one exchange at a time and answers in the order of requests.

Laws: a head that the guard refuses ends the connection, and nothing of it is forwarded. A pipelined request waits in `_held`
for its turn. After the last answer of a connection, what still comes is read and thrown away until the client is done.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import cast

from bema.core.errors import BemaError, NotFound, Overloaded, TooLarge
from bema.gateway.http.answers import error_answer
from bema.gateway.http.bodies import Body, of_request
from bema.gateway.http.dispatcher import Dispatcher
from bema.gateway.http.exchange import Door, Exchange
from bema.gateway.http.forwarding import trace
from bema.gateway.http.heads import END, RequestHead, hopeless, read_request
from bema.gateway.http.transport import FULL_HELD, FULL_PENDING, FULL_UPSTREAM, ClientTransport, end_writing
from bema.gateway.routing.decision import decide

__all__ = ["LATE", "LINGER", "HttpConnection"]

_MOST_HELD = 64 * 1024
LINGER = 2.0
"""Seconds in which a client may still read our last answer while it sends."""
LATE = 64
"""Refused connections that may linger beside those that are served: each holds a descriptor."""


class HttpConnection(asyncio.Protocol):
    __slots__ = (
        "_body",
        "_checked",
        "_client",
        "_connections",
        "_dispatcher",
        "_door",
        "_held",
        "_lingers",
        "_taken",
        "deadline",
        "exchange",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, dispatcher: Dispatcher, door: Door, connections: set[HttpConnection]) -> None:
        """`connections` is the listener's set of open ones, which this connection joins and leaves by itself."""
        self._dispatcher = dispatcher
        self._door = door
        self._connections = connections
        self._client = ClientTransport(self._done, self._cut, self._switched)
        self.exchange: Exchange | None = None
        self.deadline = inf
        self._body: Body | None = None
        self._taken = 0  # bytes of the current body
        self._held = b""
        self._checked = 0  # bytes of a partial head known to be harmless
        self._lingers = False

    # called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._client.opened(self.transport)
        self.deadline = self._dispatcher.now + self._dispatcher.limits.http_head_time
        self._connections.add(self)
        self._dispatcher.activities.connections = len(self._connections)
        # answered, not left unaccepted: a client in the queue of the kernel would wait without knowing why
        most = self._dispatcher.most_connections
        if len(self._connections) > most:
            self._refuse(Overloaded("every connection of this listener is taken", retry_after=1))
            if len(self._connections) > most + LATE:
                self.transport.close()

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if self._lingers:
            return
        if exchange is not None and exchange.tunnel and exchange.upstream is not None:
            # Past the parser for good: what follows is another protocol's, whatever it looks like.
            exchange.upstream.transport.write(data)
            return
        if self._held:
            data, self._held = self._held + data, b""
        try:
            self._take(data)
        except BemaError as error:
            self._refuse(error)

    def pause_writing(self) -> None:
        self._client.full = True
        if self.exchange is not None:
            self.exchange.client_full(True)

    def resume_writing(self) -> None:
        self._client.full = False
        if self.exchange is not None:
            self.exchange.client_full(False)
        elif self._held:
            self._again()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._dispatcher.left(len(self._connections))
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.abandon()

    # How its exchange ends

    def _done(self, keep: bool) -> None:
        """The answer to the current request was written to its end."""
        self.exchange = None
        if not keep or self._body is not None or self._dispatcher.draining:
            self._close()
            return
        if self._client.held_for:
            self._client.hold(FULL_UPSTREAM | FULL_PENDING, False)
        self.deadline = self._dispatcher.now + self._dispatcher.limits.http_idle
        # In a turn of its own: thousands of pipelined requests would nest as many calls.
        if self._held and not self._client.full:
            asyncio.get_running_loop().call_soon(self._again)

    def _cut(self) -> None:
        """End a connection whose answer cannot be completed, so that the client sees that it is not whole."""
        self.exchange = None
        self.transport.close()

    def _switched(self) -> None:
        # What came with the head or behind it waited like a pipelined request; a 101 made it the first bytes of the tunnel.
        held, self._held = self._held, b""
        self._client.hold(FULL_HELD, False)
        if held and self.exchange is not None and self.exchange.upstream is not None:
            self.exchange.upstream.transport.write(held)

    # called by the listener

    def expire(self) -> None:
        """The deadline has passed."""
        if self._client.held_for:
            # we do not read it at the moment, so it is not late
            self.deadline = self._dispatcher.now + self._dispatcher.limits.http_body_idle
        elif self._lingers or (self.exchange is None and not self._held):
            self.transport.abort()
        else:
            self._refuse(BemaError(code="request_timeout"))

    def stop(self) -> None:
        """Take no further request; a running exchange is finished."""
        if self.exchange is None and not self._lingers:
            self.transport.close()

    # Reading

    def _again(self) -> None:
        if self.exchange is None and self._held and not self.transport.is_closing():
            self._client.hold(FULL_HELD, False)
            self.data_received(b"")

    def _take(self, data: bytes) -> None:
        while data and not self._lingers:
            exchange = self.exchange
            if exchange is None and not self._client.full:
                # the empty line may lie across two reads: three bytes of it may have come before
                end = data.find(END, max(0, self._checked - 3))
                if end < 0 or end > self._dispatcher.limits.http_head:
                    self._partial(data)
                    return
                self._checked = 0
                data = self._begin(data[: end + 4], data[end + 4 :])
            elif exchange is not None and self._body is not None:
                data = self._feed(exchange, self._body, data)
            else:
                self._held = data
                if len(data) > _MOST_HELD:
                    self._client.hold(FULL_HELD, True)
                return

    def _partial(self, data: bytes) -> None:
        """Keep the beginning of a head, unless it cannot become an acceptable one any more."""
        dispatcher = self._dispatcher
        if len(data) > dispatcher.limits.http_head:
            raise TooLarge(
                f"the request head is longer than {dispatcher.limits.http_head} bytes", code="head_too_large"
            )
        if data == b"\r\n" and not self._checked:
            return  # an empty line before a request (RFC 9112 2.2)
        if hopeless(data, self._checked):
            # this raises with the reason
            read_request(data + END, dispatcher.limits.http_headers)
        if not self._checked:
            self.deadline = dispatcher.now + dispatcher.limits.http_head_time
        self._checked = len(data)
        self._held = data

    def _begin(self, raw: bytes, rest: bytes) -> bytes:
        """Start the exchange that `raw` asks for; returns what is left of `rest`."""
        dispatcher = self._dispatcher
        head = read_request(raw.removeprefix(b"\r\n"), dispatcher.limits.http_headers)
        body = of_request(head)
        # Guard before decision: only a head with one reading is looked at for where it goes.
        decision = decide(head.target, head.host, head.ours.get(b"origin"), dispatcher.hosts)
        if isinstance(decision, BemaError):
            # What breaks a rule ends its connection, as a refused head does: who sent it may read the rest in another way.
            # An unknown path breaks none.
            self._answer(decision, head, keep=body is None and isinstance(decision, NotFound))
            return rest
        # Before the exchange: a body that cannot be taken must wake no instance.
        if head.length is not None and head.length > dispatcher.limits.http_body:
            raise _body_too_large(dispatcher.limits.http_body)
        exchange = self.exchange = Exchange(self._client, dispatcher, self._door, head, decision)
        self.deadline = inf
        if body is None:
            exchange.complete = True
        else:
            self._body, self._taken = body, 0
            # Who waits for a 100 sends nothing while the instance starts, and is not late for it.
            patience = dispatcher.limits.start if head.expects_continue else 0.0
            self.deadline = dispatcher.now + dispatcher.limits.http_body_idle + patience
            if rest:
                rest = self._feed(exchange, body, rest)
        exchange.start()
        return rest

    def _feed(self, exchange: Exchange, body: Body, data: bytes) -> bytes:
        payload = body.feed(data)
        self._taken += len(payload)
        dispatcher = self._dispatcher
        if self._taken > dispatcher.limits.http_body:
            raise _body_too_large(dispatcher.limits.http_body)
        if body.done:
            self._body = None
            self.deadline = inf
        else:
            self.deadline = dispatcher.now + dispatcher.limits.http_body_idle
        if payload or body.done:
            exchange.feed(payload, body.done)
        return body.rest

    # Ending

    def _answer(self, error: BemaError, head: RequestHead, keep: bool) -> None:
        keep = keep and not head.closes and not self._dispatcher.draining
        self._dispatcher.activities.refused += 1
        self._client.write(error_answer(error, trace(head)[3:35], close=not keep, head=head.method == b"HEAD"))
        if keep:
            self.deadline = self._dispatcher.now + self._dispatcher.limits.http_idle
        else:
            self._close()

    def _refuse(self, error: BemaError) -> None:
        """Answer with an error and end the connection."""
        self._held = b""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.abandon()
            # A second head in the middle of an answer would be read as its body.
            if exchange.answered:
                self.transport.close()
                return
        else:
            self._dispatcher.activities.refused += 1
        trace_id = exchange.trace_id if exchange is not None else trace(None)[3:35]
        self._client.write(error_answer(error, trace_id, close=True))
        self._close()

    def _close(self) -> None:
        """End the connection after its last answer."""
        if self.transport.is_closing():
            return
        # Closing while the client still sends makes the kernel answer with a reset, and the client may lose the last
        # answer to it (RFC 9112 9.6). So our side is closed, and the client is read until it has closed its own.
        self._lingers = True
        self._held = b""
        self._client.hold(FULL_UPSTREAM | FULL_PENDING | FULL_HELD, False)
        if end_writing(self.transport):
            self.deadline = self._dispatcher.now + LINGER


def _body_too_large(limit: int) -> TooLarge:
    return TooLarge(f"the request body is larger than {limit} bytes", fix="Send less, or raise the limit http_body.")

"""Upstream: a connection to an instance, with one exchange at a time; and the pool of idle ones by address.

Laws: bytes of an answer are handed on as they arrive. A connection goes back to the pool only if both messages ended where
their framing said, so that no exchange ever reads the end of another's answer. A connection that was used before may be
closed by the instance at any moment: where the kernel says that the instance did not read the request, the exchange may repeat it.
"""

from __future__ import annotations

import asyncio
import select
from typing import Protocol, cast

from bema.core.errors import BemaError
from bema.core.limits import Limits
from bema.gateway.http.bodies import Body, UntilClose, of_response
from bema.gateway.http.heads import END, ResponseHead, hopeless, read_response

__all__ = ["ResponseHandler", "Upstream", "UpstreamPool"]


class ResponseHandler(Protocol):
    """What a connection calls with the parts of a response: the exchange, which this module must not import."""

    method: bytes
    complete: bool  # the request was sent to its end
    tunnel: bool  # the connection carries bytes of another protocol now

    def interim(self, head: ResponseHead) -> None: ...
    def switched(self, head: ResponseHead, rest: bytes) -> None: ...
    def answer(self, head: ResponseHead, body: Body | None, payload: bytes) -> None: ...
    def more(self, payload: bytes, body: Body) -> None: ...
    def tunnelled(self, data: bytes) -> None: ...
    def ended(self) -> None: ...
    def broken(self, error: BemaError) -> None: ...
    def repeat(self) -> bool: ...  # send the request again on a new connection; False where it must not run twice
    def upstream_full(self, full: bool) -> None: ...


class Upstream(asyncio.Protocol):
    __slots__ = (
        "_body",
        "_checked",
        "_head",
        "_held",
        "_pool",
        "_silent",
        "_unread",
        "address",
        "exchange",
        "idle_since",
        "paused",
        "reused",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, pool: UpstreamPool, address: str) -> None:
        self._pool = pool
        self.address = address
        self.exchange: ResponseHandler | None = None
        self.idle_since = 0.0
        self._head: ResponseHead | None = None
        self._body: Body | None = None
        self._held = b""
        self._checked = 0  # bytes of a partial head known to be harmless
        self._silent = True  # no head came since the request was sent
        self._unread = False
        self.paused = False
        self.reused = False  # it carried an exchange before this one

    def begin(self, exchange: ResponseHandler, data: bytes) -> None:
        """Send the start of a request; its answer goes to `exchange`."""
        self.exchange = exchange
        self._head = self._body = None
        self._held = b""
        self._checked = 0
        self._silent = True
        self._unread = False
        self.transport.write(data)

    def let_go(self) -> None:
        """Drop the connection, since nobody waits for the answer; the instance sees it close at once."""
        self.exchange = None
        # Abort, not close: unsent bytes of a request that nobody wants any more are dropped.
        self.transport.abort()

    def stale(self) -> bool:
        """Whether the instance has said something, or its end, that the event loop has not brought yet."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def eof_received(self) -> None:
        # A reset that came with the end: the instance had closed before our request arrived, so it never read it. An end
        # alone is that of an instance which read it, and was killed or gave up: its client is told, nothing runs twice.
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), 0)
        self._unread = any(event & select.POLLERR for _, event in poll.poll(0))

    def pause(self, paused: bool) -> None:
        if paused != self.paused and not self.transport.is_closing():
            self.paused = paused
            (self.transport.pause_reading if paused else self.transport.resume_reading)()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.transport.abort()  # an answer nobody asked for: the next one could not be told apart
        elif exchange.tunnel:
            exchange.tunnelled(data)
        else:
            try:
                self._read(exchange, data)
            except BemaError as error:
                self.let_go()
                exchange.broken(BemaError(error.message, code="bad_upstream", fix=error.fix))

    def _read(self, exchange: ResponseHandler, data: bytes) -> None:
        body = self._body
        if body is not None:
            payload = body.feed(data)
            if payload or body.done:
                exchange.more(payload, body)
        else:
            head, rest = self._read_head(exchange, data)
            if head is None or exchange.tunnel:
                return
            if self._gave_up(head) and exchange.repeat():
                self.let_go()
                return
            self._silent = False
            self._head = head
            self._body = body = of_response(head, exchange.method)
            exchange.answer(head, body, body.feed(rest) if body else b"")
            if body is None:
                self._finish(exchange, rest)
                return
        if body.done:
            self._finish(exchange, body.rest)

    def _read_head(self, exchange: ResponseHandler, data: bytes) -> tuple[ResponseHead | None, bytes]:
        """The head of the final answer, interim ones passed on, or None while there is none."""
        if self._held:
            data = self._held + data
        limits = self._pool.limits
        while True:
            # the empty line may lie across two reads
            end = data.find(END, max(0, self._checked - 3))
            if end < 0 or end > limits.http_head:
                if len(data) > limits.http_head:
                    raise BemaError(
                        f"the head of the instance's answer is longer than {limits.http_head} bytes, the limit http_head",
                        code="bad_upstream",
                        fix="Answer with shorter headers, or raise the limit http_head.",
                    )
                if hopeless(data, self._checked):
                    raise BemaError("the instance's answer does not follow the HTTP/1.1 grammar", code="bad_upstream")
                self._held = data
                self._checked = len(data)
                return None, b""
            self._held = b""
            self._checked = 0
            head = read_response(data[: end + 4], limits.http_answer_headers)
            data = data[end + 4 :]
            if head.status >= 200:
                return head, data
            if head.status == 101:
                exchange.switched(head, data)
                return head, b""
            self._silent = False
            exchange.interim(head)

    def _lost_unread(self, exc: Exception | None) -> bool:
        # a reset, or a write into a closed pipe, is how the kernel says that bytes of ours were not read
        return self.reused and self._silent and not self._held and (self._unread or isinstance(exc, ConnectionError))

    def _gave_up(self, head: ResponseHead) -> bool:
        # A server that ends an idle connection may say 408 first. If it crosses our request, it is no answer to that
        # (RFC 9110 15.5.9).
        return head.status == 408 and head.closes and self.reused and self._silent

    def _finish(self, exchange: ResponseHandler, rest: bytes) -> None:
        head = self._head
        self.exchange = self._body = self._head = None
        # An answer before the end of its request: the instance may read the rest as the next one.
        if rest or head is None or head.closes or not exchange.complete:
            self.transport.close()
        else:
            self._pool.give(self)
        exchange.ended()

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upstream_full(True)

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upstream_full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.lost(self)
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        # A reset in the middle of a body that only the close ends looks like its end, and is none.
        if exchange.tunnel or (exc is None and isinstance(self._body, UntilClose)):
            exchange.ended()
        elif not (self._lost_unread(exc) and exchange.repeat()):
            exchange.broken(BemaError("the instance went away before its answer was complete", code="disconnected"))


class UpstreamPool:
    """Idle connections by address, the warmest first."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._idle: dict[str, list[Upstream]] = {}
        self._now = asyncio.get_running_loop().time

    def take(self, address: str) -> Upstream | None:
        """An idle connection whose end has not come, or None."""
        idle = self._idle.get(address)
        while idle:
            # The last one given back: the others grow old and are closed, so a pool shrinks after a
            # burst.
            upstream = idle.pop()
            if upstream.transport.is_closing():
                continue
            # about a microsecond; else each instance that closes unannounced would cost its POSTs a 502
            if upstream.stale():
                upstream.transport.abort()
                continue
            upstream.reused = True
            return upstream
        return None

    def give(self, upstream: Upstream) -> None:
        idle = self._idle.setdefault(upstream.address, [])
        upstream.idle_since = self._now()
        if upstream.paused:
            upstream.pause(False)
        if len(idle) < self.limits.http_pool:
            idle.append(upstream)
        else:
            upstream.transport.close()

    def lost(self, upstream: Upstream) -> None:
        idle = self._idle.get(upstream.address)
        if idle and upstream in idle:
            idle.remove(upstream)

    async def dial(self, address: str) -> Upstream:
        """A new connection to `unix:PATH` or `tcp:HOST:PORT`; `OSError` when there is none to be had in time."""
        loop = asyncio.get_running_loop()
        kind, _, where = address.partition(":")
        async with asyncio.timeout(self.limits.http_connect):
            if kind == "unix":
                _, made = await loop.create_unix_connection(lambda: Upstream(self, address), where)
            else:
                host, _, port = where.rpartition(":")
                _, made = await loop.create_connection(lambda: Upstream(self, address), host.strip("[]"), int(port))
        return made

    def sweep(self) -> None:
        """Close what was idle for longer than servers keep it: a request must not meet their closing."""
        before = self._now() - self.limits.http_pool_idle
        for address, idle in list(self._idle.items()):
            for upstream in [u for u in idle if u.idle_since < before]:
                idle.remove(upstream)
                upstream.transport.close()
            if not idle:
                del self._idle[address]

    def close(self) -> None:
        for idle in self._idle.values():
            for upstream in tuple(idle):
                upstream.transport.close()
        self._idle.clear()

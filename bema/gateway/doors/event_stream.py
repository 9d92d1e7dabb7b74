"""EventStream: server-sent events as the answer of one exchange.

Law: nothing is kept for a client that does not read; who sends waits for room.
"""

from __future__ import annotations

from bema.gateway.http.bodies import chunk
from bema.gateway.http.exchange import Exchange

__all__ = ["EventStream"]

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
    b"x-request-id: %b\r\n%b\r\n"
)


class EventStream:
    """Writes the head when it is made."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._chunked = not exchange.head.http10
        keep = exchange.keeps()
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        timing = b"".join(b"%b: %b\r\n" % header for header in exchange.timing)
        head = _HEAD % (exchange.trace_id.encode(), timing + framing + (b"" if keep else b"connection: close\r\n"))
        exchange.begin_answer(head, 200)

    async def send(self, data: bytes, *, event: str = "", id: str = "") -> None:
        """One event; `data` is JSON, so it is one line."""
        named = (f"id: {id}\n" if id else "") + (f"event: {event}\n" if event else "")
        await self._write(b"%bdata: %b\n\n" % (named.encode(), data))

    async def beat(self) -> None:
        """A comment, which clients pass over: it shows proxies, and us, that the other side is there."""
        await self._write(b":\n\n")

    def end(self) -> None:
        if self._chunked:
            self._exchange.client.write(b"0\r\n\r\n")
        self._exchange.finish()

    async def _write(self, raw: bytes) -> None:
        self._exchange.client.write(chunk(raw) if self._chunked else raw)
        await self._exchange.room()

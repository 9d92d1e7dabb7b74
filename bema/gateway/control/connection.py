"""ControlConnection: uvicorn's connection behind the guard of the data listener.

Laws: both listeners refuse the same heads and bodies, with the same answers, within the same limits; what is refused ends its
connection, and uvicorn's parser never sees it. One request is served at a time, a pipelined one waits for its turn. A client
that sends nothing, or too slowly, or does not end, has a deadline; it needs no token to open a connection.
"""

from __future__ import annotations

import asyncio
import re
from math import inf
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bema.core.errors import BemaError, Overloaded, TooLarge
from bema.core.limits import DEFAULTS, Limits
from bema.gateway.http.answers import error_answer
from bema.gateway.http.bodies import Body, Chunked, chunk, of_request
from bema.gateway.http.connection import LATE, LINGER
from bema.gateway.http.forwarding import trace
from bema.gateway.http.heads import END, RequestHead, hopeless, read_request
from bema.gateway.http.transport import end_writing
from bema.gateway.routing.decision import Hosts

__all__ = ["ControlConnection"]

_MOST_HELD = 64 * 1024
_UPGRADE = re.compile(rb"(?i)\r\nupgrade:[^\r]*")


class ControlConnection(HttpToolsProtocol):
    """A connection of the control listener, until `deadline` (the loop's time), when its server calls `expire`."""

    def __init__(self, *, limits: Limits = DEFAULTS, most: int = DEFAULTS.http_connections, hosts: Hosts, **more: Any):
        super().__init__(**more)
        self.deadline = inf
        self._limits = limits
        self._most = most
        self._hosts = hosts
        self._body: Body | None = None
        self._held = b""
        self._checked = 0  # bytes of a partial head known to be harmless
        self._lingers = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._within(self._limits.http_head_time)
        if len(self.connections) > self._most:
            self._refuse(
                Overloaded("every connection of this listener is taken", retry_after=1),
                linger=len(self.connections) <= self._most + LATE,
            )

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        self._held += data
        self._turn()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._body is not None:
            # the rest of a body that nobody wanted would be read as long as the client cares to send it
            self._end()
            return
        self._within(self._limits.http_idle)
        # Not at once: uvicorn is still inside of the exchange that just ended.
        self.loop.call_soon(self._turn)

    def expire(self) -> None:
        """The deadline has passed."""
        if self._body is not None and not self._lingers:
            self._refuse(BemaError(code="request_timeout"))
        else:
            self.transport.close()

    def _turn(self) -> None:
        try:
            while self._held and not self._lingers and not self.transport.is_closing():
                if self._body is not None:
                    self._pass_body(self._body)
                elif self._busy():
                    # A client that sends on while its first request runs would fill our memory.
                    if len(self._held) > _MOST_HELD:
                        self.flow.pause_reading()
                    return
                elif not self._pass_head():
                    return
        except BemaError as error:
            self._refuse(error)

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _pass_head(self) -> bool:
        """Hand one whole head to uvicorn; False where there is none yet."""
        data, limits = self._held, self._limits
        end = data.find(END, max(0, self._checked - 3))
        if end > limits.http_head or (end < 0 and len(data) > limits.http_head):
            raise TooLarge(f"the request head is longer than {limits.http_head} bytes", code="head_too_large")
        if end < 0:
            self._wait_for_head(data)
            return False
        raw, self._held = data[: end + 4].removeprefix(b"\r\n"), data[end + 4 :]
        self._checked = 0
        head = read_request(raw, limits.http_headers)
        body = of_request(head)
        refused = self._hosts.refusal(head.host, head.ours.get(b"origin"))
        if refused is not None:
            self._refuse(refused, head)
            return True
        # Before uvicorn sees the head: its handler may answer within this call.
        self._body = body
        self._within(inf if body is None else limits.http_body_idle)
        # nothing here switches to another protocol, but httptools would take what follows an Upgrade for one
        super().data_received(_UPGRADE.sub(b"", raw) if b"upgrade" in head.ours else raw)
        return True

    def _wait_for_head(self, data: bytes) -> None:
        if data == b"\r\n":
            return  # an empty line before a request (RFC 9112 2.2)
        if hopeless(data, self._checked):
            # this raises with the reason
            read_request(data + END, self._limits.http_headers)
        if not self._checked:
            self._unset_keepalive_if_required()
            self._within(self._limits.http_head_time)
        self._checked = len(data)

    def _pass_body(self, body: Body) -> None:
        payload = body.feed(self._held)
        self._held = body.rest
        if body.done:
            self._body = None
        self._within(inf if body.done else self._limits.http_body_idle)
        # framed anew, so that two readings of one framing cannot differ: httptools refuses some that the grammar allows
        if isinstance(body, Chunked):
            payload = chunk(payload) + (b"0\r\n\r\n" if body.done else b"")
        if payload:
            super().data_received(payload)

    def _refuse(self, error: BemaError, head: RequestHead | None = None, *, linger: bool = True) -> None:
        """Answer with an error, unless another answer has begun, and end the connection."""
        if self._busy():
            begun, self.cycle.disconnected = self.cycle.response_started, True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()
            if begun:
                self.transport.close()
                return
        is_head = head is not None and head.method == b"HEAD"
        self.transport.write(error_answer(error, trace(head)[3:35], close=True, head=is_head))
        if linger:
            self._end()
        else:
            self.transport.close()

    def _end(self) -> None:
        # a close while the client still sends would make the kernel answer with a reset, which may take our answer with it
        self._lingers = True
        self._held = b""
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self._within(LINGER)
        end_writing(self.transport)

    def _within(self, seconds: float) -> None:
        self.deadline = self.loop.time() + seconds

"""Server: routes and their handlers, served to many connections at many addresses.

`add` takes a handler and the spec of its endpoint; everything that can be wrong with either is said there and not when
the first call comes. `drain` is the polite end: refuse what is new as never run, finish what runs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from bema.core.call import Handler, Stream, Unary, as_stream, as_unary
from bema.core.errors import BemaError, Conflict, NotFound, Overloaded, StreamCut, Unavailable
from bema.core.settings import Settings, current
from bema.core.spec import EndpointSpec
from bema.runtime import threads
from bema.runtime.rpc import transports
from bema.runtime.rpc.admission import Admission
from bema.runtime.rpc.codec import Codec, CodecFactory
from bema.runtime.rpc.server_connection import ServerConnection
from bema.wire.rpc import frames


class Route:
    """One endpoint as it is served: both forms of its handler, its codecs, and what admits calls to it."""

    __slots__ = ("admission", "decode", "decode_request", "encode", "spec", "stream", "streams_in", "unary")

    def __init__(self, handler: Handler, spec: EndpointSpec, admission: Admission | None, codec: Codec) -> None:
        self.spec = spec
        self.admission = admission
        self.streams_in = spec.shape.streams_in
        self.decode = codec.arguments_decoder(spec.parameters)
        self.encode = codec.encoder(spec.returns)
        self.decode_request = codec.decoder(spec.facts.get("requests", Any))
        self.unary: Unary
        self.stream: Stream
        if spec.shape.streams_out:
            self.stream = cast("Stream", threads.stream_in_thread(handler) if spec.threaded else handler)  # type: ignore[arg-type]
            self.unary = as_unary(self.stream)
        else:
            self.unary = cast("Unary", threads.unary_in_thread(handler) if spec.threaded else handler)
            self.stream = as_stream(self.unary)


class Server:
    """Answers calls. `token` is what every peer must show; `slots` bounds what runs at once, `queue` what waits for it."""

    def __init__(
        self,
        token: str = "",
        *,
        name: str = "",
        settings: Settings | None = None,
        slots: int | None = None,
        queue: int = 0,
    ) -> None:
        self.token = token
        self.name = name
        self.routes: dict[str, Route] = {}
        self.connections: set[ServerConnection] = set()
        self.draining = False
        self._admission = None if slots is None else Admission(slots, queue)
        self.settings = current() if settings is None else settings
        self.limits = self.settings.limits
        self.codec = CodecFactory.open(self.settings)
        self.most_headers = self.limits.rpc_headers
        self.most = self.limits.rpc_calls  # in flight on one connection
        self.accepts: Callable[[asyncio.AbstractEventLoop, Server], ServerConnection] = ServerConnection
        self._listeners: list[transports.Listening] = []
        self._idle: asyncio.Event | None = None

    def add(self, route: str, handler: Handler, spec: EndpointSpec, admission: Admission | None = None) -> None:
        """Serve `handler` at `route`; its form follows `spec.shape`, a `threaded` one is a plain function or generator.

        `admission` bounds what runs at once of the routes that share it; without one the server's own does, if it has one.
        The item type of an incoming stream is `spec.facts["requests"]`; exception types that travel as themselves are
        `spec.facts["raises"]`.
        """
        if route in self.routes:
            raise Conflict(f"{route} is served already", code="already_served")
        self.routes[route] = Route(handler, spec, admission or self._admission, self.codec)

    def remove(self, route: str) -> None:
        """Stop serving a route; running calls finish."""
        self.routes.pop(route, None)

    async def listen(self, where: str | socket.socket) -> str:
        """Accept connections at an address or on a listening socket; returns the address it has."""
        listener = await transports.listen(where, self._accept(), self.settings)
        self._listeners.append(listener)
        return listener.address

    def _accept(self) -> Callable[[], ServerConnection]:
        loop = asyncio.get_running_loop()
        return lambda: self.accepts(loop, self)

    @property
    def inflight(self) -> int:
        return sum(len(connection.calls) for connection in self.connections)

    # asked by connections

    def refusal(self, connection: ServerConnection, route: str, headers: int) -> BemaError:
        if self.draining:
            return Unavailable(f"{self.name or 'the instance'} is stopping and takes no new calls")
        if route not in self.routes:
            return NotFound(f"no endpoint {route!r} is served here")
        if headers > self.most_headers:
            return frames.headers_too_large(headers, self.most_headers)
        return Overloaded(f"{len(connection.calls)} calls run on this connection already", retry_after=0.1)

    def call_ended(self, connection: ServerConnection) -> None:
        if connection.closed and not connection.calls:
            self.connections.discard(connection)
        if self._idle is not None and not self.inflight:
            self._idle.set()

    def connection_lost(self, connection: ServerConnection) -> None:
        if not connection.calls:
            self.connections.discard(connection)

    # ending

    async def drain(self, grace: float | None = None) -> bool:
        """Refuse new calls, let running ones finish within `grace`, cut the rest. True when nothing had to be cut."""
        grace = self.limits.drain if grace is None else grace
        self._take_no_more()
        for connection in self.connections:
            if not connection.closed:
                connection.put(0, frames.GOAWAY, None)
        try:
            async with asyncio.timeout(grace):
                await self._wait_idle()
        except TimeoutError:
            await self._cut()
            return False
        return True

    def _take_no_more(self) -> None:
        self.draining = True
        self.most = 0

    async def _wait_idle(self) -> None:
        while self.inflight:
            self._idle = asyncio.Event()
            await self._idle.wait()

    async def _cut(self) -> None:
        running = [call for connection in self.connections for call in connection.calls.values()]
        for call in running:
            call.conn.end(call, StreamCut("the instance stopped before the call ended"))
        if tasks := [call.task for call in running if call.task is not None]:
            await asyncio.wait(tasks, timeout=1.0)

    async def close(self) -> None:
        """Stop listening, cut what runs, close every connection. Safe to call twice."""
        self._take_no_more()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        await self._cut()
        for connection in tuple(self.connections):
            connection.close()
        await asyncio.sleep(0)

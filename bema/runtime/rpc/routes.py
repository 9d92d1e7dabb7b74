"""Routes: the table of the endpoints that a server answers, as its connections read it.

Laws: a route is complete when it is added: its codecs and both forms of its handler are made then, so that a call makes
none. Connections know this table and not the server that listens.
"""

from __future__ import annotations

import asyncio
from typing import Any, Generic, TypeVar, cast

from bema.core.access import LOCAL_ADMIN, Credentials
from bema.core.call import Handler, Item, Stream, Unary, as_stream, as_unary
from bema.core.errors import BemaError, NotFound, Overloaded, Unavailable
from bema.core.limits import Limits
from bema.core.spec import EndpointSpec
from bema.runtime.rpc.adapter import off_the_loop
from bema.runtime.rpc.admission import Admission
from bema.runtime.rpc.call_log import CallLog
from bema.runtime.rpc.codec import Codec, EndpointCodec
from bema.runtime.rpc.server_call import CallConnection
from bema.wire.rpc import cursors, frames


class Route:
    """One served endpoint: both forms of its handler, its codecs, and the admission of its calls."""

    __slots__ = (
        "admission",
        "decode",
        "decode_request",
        "encode",
        "encode_item",
        "spec",
        "stream",
        "streams_in",
        "unary",
    )

    def __init__(
        self, route: str, handler: Handler, spec: EndpointSpec, admission: Admission | None, codec: Codec
    ) -> None:
        self.spec = spec
        self.admission = admission
        self.streams_in = spec.shape.streams_in
        made = EndpointCodec(route, codec)
        self.decode = made.of(made.codec.arguments_decoder, spec.parameters)
        self.encode = made.of(made.codec.encoder, spec.returns, "what it returns")
        self.decode_request = made.of(
            getattr(codec, "requests_decoder", codec.decoder),  # younger than the other methods: a plugin may lack it
            spec.facts.get("requests", Any),
            "the stream that it takes",
        )
        # of a stream that is not resumable the items are what they are: an `Item` among them is refused as any other type
        self.encode_item = self._encode_value if spec.resumable else self.encode
        self.unary: Unary
        self.stream: Stream
        if spec.shape.streams_out:
            self.stream = cast("Stream", off_the_loop(handler, spec))
            self.unary = as_unary(self.stream)
        else:
            self.unary = cast("Unary", off_the_loop(handler, spec))
            self.stream = as_stream(self.unary)

    def _encode_value(self, item: Any) -> bytes:
        """An item for who asked for no cursors."""
        return self.encode(item.value if type(item) is Item else item)

    def encode_with_cursor(self, item: Any) -> bytes:
        """An item for who can continue the stream."""
        cursor, value = (item.cursor, item.value) if type(item) is Item else (None, item)
        return cursors.pack_item(cursor, self.encode(value))


C = TypeVar("C", bound=CallConnection)


class RouteTable(Generic[C]):
    """What the connections of one server share: routes, token, limits, and whether the server still takes calls."""

    def __init__(self, token: str, name: str, limits: Limits) -> None:
        self.token = token
        # the token is in the record, which only the local user reads
        self.credentials = Credentials({token: LOCAL_ADMIN})
        self.name = name
        self.limits = limits
        self.most_headers = limits.rpc_headers
        self.most = limits.rpc_calls  # calls in flight on one connection
        self.routes: dict[str, Route] = {}
        self.connections: set[C] = set()
        self.draining = False
        self.log: CallLog | None = None
        self.idle: asyncio.Event | None = None  # set when the last call has ended, where somebody waits for that

    def came(self) -> int:
        """How many calls came on the connections that are open."""
        # ids are given in turn
        return sum(connection.newest for connection in self.connections)

    @property
    def inflight(self) -> int:
        return sum(len(connection.calls) for connection in self.connections)

    def refusal(self, connection: C, route: str, headers: int) -> BemaError:
        """The error for a call that is not taken; `headers` is the size of its headers in bytes."""
        if self.draining:
            return Unavailable(f"{self.name or 'the instance'} is stopping and takes no new calls")
        if route not in self.routes:
            return NotFound(f"no endpoint {route!r} is served here")
        if headers > self.most_headers:
            return frames.headers_too_large(headers, self.most_headers)
        return Overloaded(f"{len(connection.calls)} calls run on this connection already", retry_after=0.1)

    def call_ended(self, connection: C) -> None:
        if connection.closed and not connection.calls:
            self.connections.discard(connection)
        if self.idle is not None and not self.inflight:
            self.idle.set()

    def connection_lost(self, connection: C) -> None:
        if not connection.calls:
            self.connections.discard(connection)

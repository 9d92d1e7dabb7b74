"""The only module that opens RPC sockets: Unix, TCP, and pairs inside one process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from bema.core.errors import Invalid, Unavailable
from bema.runtime import sockets
from bema.runtime.connection import CONNECT, Connection


class MemoryTransport(asyncio.Transport):
    """One end of an in-process pair: what is written arrives at the other end in a later turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self.peer: MemoryTransport | None = None
        self._closing = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered here: the windows of the streams bound what is on its way."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        peer = self.peer
        if not self._closing and peer is not None:
            self._loop.call_soon(peer.deliver, bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def deliver(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)
            if self.peer is not None:
                self._loop.call_soon(self.peer.close)

    abort = close

    def pause_reading(self) -> None:
        """Writers in this process are bounded by credits; see `set_write_buffer_limits`."""

    def resume_reading(self) -> None: ...


_REMOVES = sys.version_info >= (3, 13)

Accept = Callable[[], Connection]
C = TypeVar("C", bound=Connection)

_memory: dict[str, tuple[asyncio.AbstractEventLoop, Accept]] = {}


class Listener:
    """Something that accepts connections at an address until closed."""

    def __init__(
        self, address: str, server: asyncio.Server | None = None, descriptor: int = -1, path: str | None = None
    ) -> None:
        self.address = address
        self._server = server
        self._descriptor = descriptor
        self._path = path

    def close(self) -> None:
        """Stop accepting; accepted connections live on. The file of a Unix socket that we bound goes with it."""
        if self._server is None:
            _memory.pop(self.address, None)
            return
        sockets.disown(self._descriptor)
        self._server.close()
        if self._path is not None:
            Path(self._path).unlink(missing_ok=True)


async def listen(where: str | socket.socket, accept: Accept) -> Listener:
    """Accept connections at an address, or on a socket that listens already."""
    loop = asyncio.get_running_loop()
    if isinstance(where, str) and where.startswith("memory:"):
        if where in _memory:
            raise Invalid(f"address {where!r} is taken", code="already_served")
        _memory[where] = (loop, accept)
        return Listener(where)
    listener = sockets.bind(where) if isinstance(where, str) else where
    listener.setblocking(False)
    if listener.family != socket.AF_UNIX:
        # accepted sockets inherit it; asyncio sets it only on sockets made with an explicit protocol number
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if listener.family == socket.AF_UNIX:
        # from 3.13 on asyncio would remove the file, also of a socket that was passed to us
        keep: dict[str, Any] = {"cleanup_socket": False} if _REMOVES and isinstance(loop, asyncio.BaseEventLoop) else {}
        server = await loop.create_unix_server(accept, sock=listener, backlog=1024, **keep)
    else:
        server = await loop.create_server(accept, sock=listener, backlog=1024)
    sockets.own(listener.fileno())
    path = where[5:] if isinstance(where, str) and where.startswith("unix:") else None
    return Listener(sockets.address_of(listener), server, listener.fileno(), path)


def reachable(address: str, *, same_host: bool) -> bool:
    """Whether connecting can work from this loop at all."""
    protocol, _ = sockets.split(address)
    if protocol == "memory":
        found = _memory.get(address)
        return found is not None and found[0] is asyncio.get_running_loop()
    return protocol == "tcp" or same_host


async def connect(address: str, make: Callable[[], C]) -> C:
    """Open a connection and wait for its transport; `Unavailable` when nobody listens there."""
    loop = asyncio.get_running_loop()
    protocol, rest = sockets.split(address)
    if protocol == "memory":
        return _connect_memory(loop, address, make())
    try:
        async with asyncio.timeout(CONNECT):
            if protocol == "unix":
                _, made = await loop.create_unix_connection(make, rest)
            else:
                host, port = sockets.host_port(rest)
                transport, made = await loop.create_connection(make, host, port)
                with contextlib.suppress(OSError):
                    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError as error:
        raise Unavailable(f"nobody answers at {address}: {error.strerror or error or 'timeout'}") from error
    return made


def _connect_memory(loop: asyncio.AbstractEventLoop, address: str, client: C) -> C:
    found = _memory.get(address)
    if found is None or found[0] is not loop:
        raise Unavailable(f"nobody answers at {address} in this event loop")
    server = found[1]()
    ends = MemoryTransport(loop, client), MemoryTransport(loop, server)
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    server.connection_made(ends[1])
    client.connection_made(ends[0])
    return client

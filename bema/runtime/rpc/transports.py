"""Transports: the ways to connect, by Unix sockets, by TCP, and by pairs inside of one process.

Laws: no other module opens RPC sockets. An address begins with the name of its transport, so that a plugin adds a way to
connect by its name alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from bema.core.errors import Invalid, Unavailable
from bema.core.settings import Settings, current
from bema.core.version import VERSION
from bema.parts import Factory, FactoryError
from bema.runtime import forks
from bema.runtime.rpc import sockets
from bema.runtime.rpc.connection import Connection


class MemoryEnd(asyncio.Transport):
    """One end of an in-process pair: what is written arrives at the other end in a later turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol | Connection) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self.peer: MemoryEnd | None = None
        self._closing = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Does nothing, since nothing is buffered here: the windows of streams bound what is under way."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        peer = self.peer
        # a turn later, as a socket would: a peer that answers within `write` would run inside of the writer's code
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


class Listening(Protocol):
    """Accepts connections at an address until it is closed; accepted connections live on."""

    address: str

    def close(self) -> None:
        """Accept no more."""
        ...


class Transport(Protocol):
    """One way to connect: `name:rest` are its addresses.

    What drives a connection is an `asyncio.BufferedProtocol`; a transport that has the bytes in hand may call its
    `data_received` instead of asking for a buffer.
    """

    async def listen(self, address: str, accept: Accept) -> Listening:
        """Accept connections at an address, each driven by what `accept()` returns; a port of 0 takes a free one."""
        ...

    async def connect(self, address: str, make: Callable[[], C]) -> C:
        """Open a connection driven by what `make()` returns; `Unavailable` where nobody listens at the address."""
        ...

    def reachable(self, address: str, *, same_host: bool) -> bool:
        """Whether a connection from this event loop can succeed at all."""
        ...


class TransportFactory(Factory[Transport], group="bema.transport", api=VERSION, opens="plain"):
    """Transports by the name that addresses begin with."""


def transport_of(address: str, settings: Settings | None = None) -> Transport:
    """The transport of an address; `Invalid` for what is no address, `FactoryError` for an unknown transport."""
    name, colon, rest = address.partition(":")
    if not colon or not rest:
        raise Invalid(f"address {address!r} is not a transport's name, a colon and a place")
    return TransportFactory.open(current() if settings is None else settings, name)


async def listen(where: str | socket.socket, accept: Accept, settings: Settings | None = None) -> Listening:
    """Accept connections at an address, or on a socket that listens already. Raises what the transport raises."""
    if isinstance(where, str):
        return await transport_of(where, settings).listen(where, accept)
    return await _listen(where, accept)


def reachable(address: str, settings: Settings | None = None, *, same_host: bool) -> bool:
    """Whether a connection from this loop can succeed at all; False where the transport is not installed."""
    try:
        return transport_of(address, settings).reachable(address, same_host=same_host)
    except FactoryError:
        return False


async def connect(address: str, make: Callable[[], C], settings: Settings | None = None) -> C:
    """Open a connection; `Unavailable` where nobody listens there, or nobody answers within the limit `rpc_connect`."""
    settings = current() if settings is None else settings
    try:
        async with asyncio.timeout(settings.limits.rpc_connect):
            return await transport_of(address, settings).connect(address, make)
    except TimeoutError as error:
        raise Unavailable(f"nobody answers at {address}: timeout") from error


class Listener:
    def __init__(self, address: str, server: asyncio.Server, descriptor: int, path: str | None) -> None:
        self.address = address
        self._server = server
        self._descriptor = descriptor
        self._path = path

    def close(self) -> None:
        """The file of a Unix socket that we bound goes with it."""
        forks.forget(self._descriptor)
        self._server.close()
        if self._path is not None:
            Path(self._path).unlink(missing_ok=True)


async def _listen(listener: socket.socket, accept: Accept, path: str | None = None) -> Listener:
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    if listener.family != socket.AF_UNIX:
        # accepted sockets inherit it; asyncio sets it only on sockets made with an explicit protocol number
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if listener.family == socket.AF_UNIX:
        # from 3.13 on asyncio would remove the file, also of a socket that was passed to us
        keep: dict[str, Any] = {"cleanup_socket": False} if _REMOVES else {}
        server = await loop.create_unix_server(accept, sock=listener, backlog=1024, **keep)
    else:
        server = await loop.create_server(accept, sock=listener, backlog=1024)
    forks.close_in_children(listener.fileno())
    return Listener(sockets.address_of(listener), server, listener.fileno(), path)


@contextlib.contextmanager
def _answered(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"nobody answers at {address}: {error.strerror or error or 'timeout'}") from error


@TransportFactory.register("unix")
class UnixTransport:
    """`unix:PATH`, for this host."""

    async def listen(self, address: str, accept: Accept) -> Listening:
        return await _listen(sockets.bind(address), accept, sockets.split(address)[1])

    async def connect(self, address: str, make: Callable[[], C]) -> C:
        with _answered(address):
            _, made = await asyncio.get_running_loop().create_unix_connection(make, sockets.split(address)[1])
        return made

    def reachable(self, address: str, *, same_host: bool) -> bool:
        return same_host


@TransportFactory.register("tcp")
class TcpTransport:
    """`tcp:HOST:PORT`; the port 0 is any that is free."""

    async def listen(self, address: str, accept: Accept) -> Listening:
        return await _listen(sockets.bind(address), accept)

    async def connect(self, address: str, make: Callable[[], C]) -> C:
        host, port = sockets.host_port(sockets.split(address)[1])
        with _answered(address):
            transport, made = await asyncio.get_running_loop().create_connection(make, host, port)
        # a host that lost power closes nothing: the kernel finds out by keepalive
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return made

    def reachable(self, address: str, *, same_host: bool) -> bool:
        return True


_memory: dict[str, tuple[asyncio.AbstractEventLoop, Accept]] = {}


class MemoryListener:
    def __init__(self, address: str) -> None:
        self.address = address

    def close(self) -> None:
        _memory.pop(self.address, None)


@TransportFactory.register("memory")
class MemoryTransport:
    """`memory:NAME`, for one event loop: the twin without sockets."""

    async def listen(self, address: str, accept: Accept) -> Listening:
        if address in _memory:
            raise Invalid(f"address {address!r} is taken", code="already_served")
        _memory[address] = (asyncio.get_running_loop(), accept)
        return MemoryListener(address)

    async def connect(self, address: str, make: Callable[[], C]) -> C:
        loop = asyncio.get_running_loop()
        if not self.reachable(address, same_host=True):
            raise Unavailable(f"nobody answers at {address} in this event loop")
        client, server = make(), _memory[address][1]()
        ends = MemoryEnd(loop, client), MemoryEnd(loop, server)
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        server.connection_made(ends[1])
        client.connection_made(ends[0])
        return client

    def reachable(self, address: str, *, same_host: bool) -> bool:
        found = _memory.get(address)
        return found is not None and found[0] is asyncio.get_running_loop()

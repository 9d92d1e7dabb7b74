"""Sockets: where we listen, what is reachable, who owns descriptors."""

import asyncio
import contextlib
import os
import socket
import stat
from pathlib import Path

import pytest

from bema.core.errors import Invalid, ProtocolError, Refused, Unavailable
from bema.core.limits import DEFAULTS
from bema.core.settings import current
from bema.runtime.rpc import connection, sockets, transports
from bema.runtime.rpc.client_connection import ClientConnection
from bema.runtime.rpc.server import Server
from bema.runtime.rpc.server_connection import ServerConnection

pytestmark = pytest.mark.usefixtures("each_loop")


def _socket(end: connection.Connection) -> socket.socket:
    assert end.transport is not None
    found: socket.socket = end.transport.get_extra_info("socket")
    return found


@pytest.mark.parametrize("address", ["", "unix:", "http:x", "tcp", "memory:", "x"])
def test_an_address_is_a_protocol_and_a_place(address):
    with pytest.raises(Invalid, match="unix:PATH"):
        sockets.split(address)


def test_addresses_are_read():
    assert sockets.split("unix:/run/x.sock") == ("unix", "/run/x.sock")
    assert sockets.host_port("127.0.0.1:80") == ("127.0.0.1", 80)
    assert sockets.host_port("[::1]:80") == ("::1", 80)
    with pytest.raises(Invalid, match="HOST:PORT"):
        sockets.host_port("localhost")


def test_a_unix_socket_is_its_owners_alone_and_a_stale_one_is_replaced(tmp_path):
    path = tmp_path / "x.sock"
    first = sockets.bind(f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(Refused, match="Address already in use"):
        sockets.bind(f"unix:{path}")
    first.close()
    second = sockets.bind(f"unix:{path}")
    assert sockets.address_of(second) == f"unix:{path}"
    second.close()


def test_a_taken_port_is_refused_in_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refused, match=f"cannot listen on tcp:127.0.0.1:{port}: Address already in use") as caught:
            sockets.bind(f"tcp:127.0.0.1:{port}")
    assert caught.value.code == "port_in_use"


def test_a_server_listens_on_addresses_and_on_passed_sockets(tmp_path):
    async def story():
        server = Server("t")
        passed = socket.create_server(("127.0.0.1", 0))
        kept = tmp_path / "passed.sock"
        unix = sockets.bind(f"unix:{kept}")
        addresses = [
            await server.listen(f"unix:{tmp_path}/own.sock"),
            await server.listen("tcp:127.0.0.1:0"),
            await server.listen("memory:both"),
            await server.listen(passed),
            await server.listen(unix),
        ]
        assert addresses[3] == f"tcp:127.0.0.1:{passed.getsockname()[1]}"
        loop = asyncio.get_running_loop()
        for address in addresses:
            caller = await transports.connect(address, lambda: ClientConnection(loop, "t"))
            await caller.ready
            caller.close()
        with pytest.raises(Invalid, match="taken"):
            await server.listen("memory:both")
        await server.close()
        assert not (tmp_path / "own.sock").exists()
        assert kept.exists(), "the file of a socket that was passed belongs to who passed it"
        with pytest.raises(Unavailable):
            await transports.connect("memory:both", lambda: ClientConnection(loop, "t"))

    asyncio.run(story())


def test_accepted_tcp_connections_wait_for_no_acknowledgement(tmp_path):
    async def story():
        server = Server("t")
        address = await server.listen("tcp:127.0.0.1:0")
        loop = asyncio.get_running_loop()
        caller = await transports.connect(address, lambda: ClientConnection(loop, "t"))
        await caller.ready
        for end in (caller, *server.connections):
            sock = _socket(end)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        caller.close()
        await server.close()

    asyncio.run(story())


def test_what_can_be_reached_from_here():
    async def story():
        server = Server()
        await server.listen("memory:near")
        assert transports.reachable("memory:near", same_host=True)
        assert not transports.reachable("memory:far", same_host=True)
        assert transports.reachable("unix:/x", same_host=True)
        assert not transports.reachable("unix:/x", same_host=False)
        assert transports.reachable("tcp:h:1", same_host=False)

        async def elsewhere() -> bool:
            return transports.reachable("memory:near", same_host=True)

        assert not await asyncio.to_thread(asyncio.run, elsewhere())
        await server.close()

    asyncio.run(story())


def test_a_peer_that_never_greets_is_dropped(tmp_path):

    async def story():
        server = Server("t", settings=current().but(DEFAULTS.but(rpc_connect=0.05)))
        where = await server.listen(f"unix:{tmp_path}/x.sock")
        reader, writer = await asyncio.open_unix_connection(where.removeprefix("unix:"))
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        await server.close()

    asyncio.run(story())


def test_a_stranger_that_accepts_and_says_nothing_is_not_waited_for(tmp_path):

    async def story():
        gone = asyncio.Event()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            gone.set()

        silent = await asyncio.start_unix_server(hold, tmp_path / "x.sock")
        loop = asyncio.get_running_loop()
        caller = await transports.connect(
            f"unix:{tmp_path}/x.sock", lambda: ClientConnection(loop, "t", limits=DEFAULTS.but(rpc_connect=0.05))
        )
        with pytest.raises(ProtocolError, match="did not greet within"):
            await caller.ready
        await gone.wait()
        await asyncio.sleep(0)
        silent.close()

    asyncio.run(story())


def test_a_forked_child_holds_none_of_our_sockets(tmp_path):
    async def story():
        server = Server("t")
        where = await server.listen(f"unix:{tmp_path}/x.sock")
        loop = asyncio.get_running_loop()
        caller = await transports.connect(where, lambda: ClientConnection(loop, "t"))
        await caller.ready
        kept = [_socket(caller).fileno()]
        kept += [_socket(end).fileno() for end in server.connections]
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                targets = {str(Path(f"/proc/self/fd/{descriptor}").readlink()) for descriptor in kept}
                os.write(writing, ",".join(targets).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with open(reading) as told:
            assert told.read() == "/dev/null"
        assert not caller.closed
        caller.close()
        await server.close()

    asyncio.run(story())


def test_all_messages_of_a_turn_leave_in_one_write():
    class Wire(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.written: list[bytes] = []

        def write(self, data) -> None:
            self.written.append(bytes(data))

        def set_write_buffer_limits(self, high=None, low=None) -> None: ...

        def get_extra_info(self, name, default=None):
            return default

        def abort(self) -> None: ...

    async def story():
        end = ServerConnection(asyncio.get_running_loop(), Server())
        wire = Wire()
        end.connection_made(wire)
        for n in range(100):
            end.put_payload(n, 10, b"x")
        assert wire.written == []
        await asyncio.sleep(0)
        assert len(wire.written) == 1
        end.put_payload(101, 10, b"x" * 40_000)
        assert len(wire.written) == 2, "a full frame does not wait for the end of the turn"
        end.connection_lost(None)

    asyncio.run(story())

"""Connections that ask for nothing make no listener deaf."""

from __future__ import annotations

import asyncio
import resource
import socket

import pytest

from bema.core.limits import DEFAULTS
from bema.gateway.http.listener import affordable, affordable_control
from bema.gateway.server import Embedded
from tests.gateway.gate import Client, gate, request, says_ok, until


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def test_a_silent_connection_of_the_control_listener_is_closed():
    async def story():
        listener = socket.create_server(("127.0.0.1", 0))
        server = Embedded(app, DEFAULTS.but(http_head_time=0.5, drain=1))
        serving = asyncio.create_task(server.serve([listener]))
        await server.accepting.wait()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HT")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        server.should_exit = True
        await serving

    asyncio.run(asyncio.wait_for(story(), 30))


@pytest.fixture
def few_descriptors():
    given = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (292, given[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, given)


@pytest.mark.usefixtures("few_descriptors")
def test_past_what_descriptors_allow_the_newest_is_told_503():
    async def story():
        async with gate() as g:
            path = await g.serve(says_ok)
            idle = [await g.client() for _ in range(affordable())]
            await until(lambda: len(g.listener.connections) == len(idle))
            assert (await g.get(path)).status == 503
            for client in idle:
                client.writer.close()
            await until(lambda: not g.listener.connections)
            assert (await g.get(path)).status == 200

    asyncio.run(asyncio.wait_for(story(), 30))


@pytest.mark.usefixtures("few_descriptors")
def test_a_full_listener_leaves_the_other_its_share_and_slow_heads_come_to_an_end():
    async def story():
        listener = socket.create_server(("127.0.0.1", 0))
        server = Embedded(app, DEFAULTS.but(http_head_time=1, drain=1))
        serving = asyncio.create_task(server.serve([listener]))
        await server.accepting.wait()
        async with gate(head_time=1) as g:
            path = await g.serve(says_ok)
            ports = {g.port: path, listener.getsockname()[1]: "/healthz"}

            async def status(port: int) -> int:
                async with Client(*await asyncio.open_connection("127.0.0.1", port)) as client:
                    client.send(request(ports[port]))
                    return (await client.answer()).status

            for port in ports:
                crowd = []
                for number in range(affordable_control() + 5 if port != g.port else affordable() + 5):
                    client = Client(*await asyncio.open_connection("127.0.0.1", port))
                    client.send((b"", b"G", b"GET / HTTP/1.1\r\nHost: lo")[number % 3])
                    crowd.append(client)
                assert await status(port) == 503
                assert [await status(other) for other in ports if other != port] == [200]
                assert all([await client.closed() for client in crowd])
                for client in crowd:
                    client.writer.close()
                await until(lambda: not g.listener.connections and not server.server_state.connections)
                assert [await status(each) for each in ports] == [200, 200]
        server.should_exit = True
        await serving

    asyncio.run(asyncio.wait_for(story(), 30))

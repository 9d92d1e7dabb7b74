"""Connections that ask for nothing make no listener deaf."""

from __future__ import annotations

import asyncio
import resource
import socket

import pytest

from bema.core.limits import DEFAULTS
from bema.gateway.http.listener import affordable
from bema.gateway.server import Embedded
from tests.gateway.gate import gate, says_ok, until


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
    resource.setrlimit(resource.RLIMIT_NOFILE, (148, given[1]))
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

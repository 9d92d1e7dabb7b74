"""One connection per instance, over the best address that can be reached."""

import asyncio
import socket

import pytest

from bema.core.errors import Disconnected, Unavailable
from bema.runtime.rpc.client_connection import ClientConnection
from bema.runtime.rpc.pool import ConnectionPool
from bema.runtime.rpc.server import Server
from tests.runtime.helpers import an_instance


def test_the_first_address_that_answers_is_taken(tmp_path):
    async def story():
        server = Server("t")
        unix = await server.listen(f"unix:{tmp_path}/x.sock")
        tcp = await server.listen("tcp:127.0.0.1:0")
        pool = ConnectionPool()
        near = an_instance(addresses={"rpc": ("memory:elsewhere", f"unix:{tmp_path}/gone.sock", unix, tcp)}, token="t")
        far = an_instance(addresses={"rpc": (unix, tcp)}, token="t", host="another-machine")
        families = []
        for instance in (near, far):
            transport = (await pool.connect(instance)).transport
            assert transport is not None
            families.append(transport.get_extra_info("socket").family)
        assert families == [socket.AF_UNIX, socket.AF_INET]
        await pool.close()
        await server.close()

    asyncio.run(story())


def test_an_instance_that_cannot_be_reached_is_unavailable_and_nothing_is_logged_of_it(tmp_path, caplog):
    async def story():
        pool = ConnectionPool()
        for addresses in ({}, {"rpc": ()}, {"rpc": ("memory:nobody",)}, {"rpc": (f"unix:{tmp_path}/gone.sock",)}):
            with pytest.raises(Unavailable):
                await pool.connect(an_instance(addresses=addresses))
        assert not pool.connections
        await pool.close()

    asyncio.run(story())
    assert caplog.records == [], "who asked for it was told"


def test_a_lost_connection_is_made_anew(tmp_path):
    async def story():
        server = Server("t")
        where = await server.listen(f"unix:{tmp_path}/x.sock")
        pool = ConnectionPool()
        instance = an_instance(addresses={"rpc": (where,)}, token="t")
        first = await pool.connect(instance)
        assert await pool.connect(instance) is first
        first.abort(Disconnected("pulled"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = await pool.connect(instance)
        assert second is not first
        assert second.usable
        await pool.close()
        await server.close()

    asyncio.run(story())


def test_an_instance_that_goes_away_takes_no_new_calls(tmp_path):
    async def story():
        server = Server("t")
        where = await server.listen(f"unix:{tmp_path}/x.sock")
        pool = ConnectionPool()
        instance = an_instance(addresses={"rpc": (where,)}, token="t")
        connection = await pool.connect(instance)
        changed = connection.changed
        await server.drain(1)
        async with asyncio.timeout(5):
            await changed
        with pytest.raises(Unavailable, match="stopping"):
            await pool.connect(instance)
        await pool.close()
        await server.close()

    asyncio.run(story())


def test_a_connection_that_is_lost_as_it_was_greeted_is_given_to_nobody(tmp_path, monkeypatch):
    def greeted_and_lost(connection, hello):
        greet(connection, hello)
        connection.close()

    greet = ClientConnection.greeted
    monkeypatch.setattr(ClientConnection, "greeted", greeted_and_lost)

    async def story():
        server = Server("t")
        where = await server.listen(f"unix:{tmp_path}/x.sock")
        pool = ConnectionPool()
        with pytest.raises(Unavailable, match="stopped while it was connected to"):
            await pool.connect(an_instance(addresses={"rpc": (where,)}, token="t"))
        await pool.close()
        await server.close()

    asyncio.run(story())

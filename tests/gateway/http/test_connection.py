"""One client's connection: what was sent early is not lost, and what is refused ends it."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.gate import OK, gate, read_request, request, says_ok
from tests.gateway.http.test_listener import run

pytestmark = pytest.mark.usefixtures("every_loop")

UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


async def echoes_shouting(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.01)
    writer.write(SWITCHED + b"hello")
    while data := await reader.read(65536):
        writer.write(data.upper())
    writer.close()


@pytest.mark.parametrize("behind", [0, 1, 3])
def test_bytes_that_came_with_or_behind_an_upgrade_reach_the_instance_first(behind):
    early = [b"with the head;", b"behind;", b"and\r\n\r\nmore;", b"last"]

    async def story():
        async with gate() as g:
            path = await g.serve(echoes_shouting)
            async with await g.client() as client:
                client.send(request(path, *UPGRADE) + early[0])
                for piece in early[1 : 1 + behind]:
                    await asyncio.sleep(0.001)
                    client.send(piece)
                assert b" 101 " in await client.head()
                assert await client.reader.readexactly(5) == b"hello"
                client.send(b"!")
                wanted = b"".join(early[: 1 + behind]).upper() + b"!"
                assert await asyncio.wait_for(client.reader.readexactly(len(wanted)), 5) == wanted

    run(story())


def test_more_than_is_held_for_an_upgrade_is_not_lost_either():
    early = bytes(range(97, 123)) * 40_000

    async def story():
        async with gate() as g:
            path = await g.serve(echoes_shouting)
            async with await g.client() as client:
                client.send(request(path, *UPGRADE) + early)
                assert b" 101 " in await client.head()
                assert await client.reader.readexactly(5) == b"hello"
                assert await asyncio.wait_for(client.reader.readexactly(len(early)), 20) == early.upper()

    run(story())


def test_an_instance_that_knows_no_upgrade_says_so_and_the_connection_goes_on():
    async def instance(reader, writer):
        while True:
            head, _ = await read_request(reader)
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone" if b"pgrade" in head else OK)

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path, *UPGRADE) + request(path))
                answer = await client.answer()
                assert (answer.status, answer.body) == (404, b"none")
                assert (await client.answer()).body == b"ok"

    run(story())


def test_the_end_of_a_tunnel_reaches_the_other_side_after_its_last_byte():
    async def instance(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHED + b"x" * 300_000)
        await writer.drain()
        writer.close()

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path, *UPGRADE))
                assert b" 101 " in await client.head()
                assert len(await asyncio.wait_for(client.reader.read(), 5)) == 300_000
            (activity,) = g.listener.activities.all()
            assert activity.in_flight == 0

    run(story())


REFUSED = {
    "escaped slash": ("/a%2fb", (), 400),
    "parent": ("/../x", (), 400),
    "two slashes": ("//x", (), 400),
    "foreign origin": (None, ("Origin: http://evil.example",), 403),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_what_is_refused_closes_and_nothing_behind_it_is_read(name, method):
    target, headers, status = REFUSED[name]
    seen = []

    async def instance(reader, writer):
        seen.append(await reader.read(100))

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                body = b"x" if method == "POST" else b""
                client.send(request(target or path, *headers, method=method, body=body) + request(path))
                answer = await client.answer(method)
                assert (answer.status, answer.headers["connection"]) == (status, "close")
                assert await client.reader.read() == b""
            assert seen == []

    run(story())


def test_a_foreign_host_closes_and_an_unknown_path_does_not():
    async def story():
        async with gate() as g:
            path = await g.serve(says_ok)
            async with await g.client() as client:
                client.send(request("/nothing/here") + request(path))
                unknown, known = await client.answer(), await client.answer()
                assert (unknown.status, "connection" in unknown.headers, known.status) == (404, False, 200)
            async with await g.client() as client:
                client.send(request(path).replace(b"localhost", b"evil.example") + request(path))
                assert (await client.answer()).headers["connection"] == "close"
                assert await client.closed()

    run(story())

"""However a request is cut on its way, it is the same request."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bema.gateway.http.bodies import Chunked
from bema.gateway.http.heads import hopeless
from tests.gateway.gate import Client, gate, read_request, request, until

HEAD = b"GET /7 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nX-Empty:\r\n\r\n"
CHUNKED = b"5\r\nhello\r\n6;x=1\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17])
def test_no_part_of_a_valid_head_is_hopeless(size):
    for end in range(1, len(HEAD)):
        for checked in range(0, end, size):
            assert not hopeless(HEAD[:end], checked)


def test_a_flaw_is_seen_whatever_was_checked_before_it():
    flawed = b"GET / HTTP/1.1\r\nX: a\rb"
    assert hopeless(flawed, len(flawed) - 1)
    assert hopeless(b"GET / HTTP/1.1\n", 14)


@given(st.lists(st.integers(0, 400), max_size=12), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_request_in_any_pieces_gives_what_the_whole_gives(cuts, chunked):
    async def echo(reader, writer):
        while True:
            head, body = await read_request(reader)
            if b"transfer-encoding" in head.lower():
                body = b"".join([piece async for piece in Client(reader, writer).chunks()])
            said = head.split(b"\r\n")[0] + body
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))

    async def story():
        async with gate() as g:
            path = await g.serve(echo)
            if chunked:
                one = request(path, "Transfer-Encoding: chunked", method="POST") + CHUNKED
            else:
                one = request(path, "Accept: */*", method="POST", body=b"hello\r\n\r\nworld")
            whole = one * 2
            async with await g.client() as client:
                client.send(whole)
                wanted = [(await client.answer()).body for _ in range(2)]
                await until(lambda: all(c.exchange is None for c in g.listener.connections))
                (connection,) = g.listener.connections
                at = sorted({0, *(cut % len(whole) for cut in cuts), len(whole)})
                for start, end in pairwise(at):
                    connection.data_received(whole[start:end])
                assert [(await client.answer()).body for _ in range(2)] == wanted

    asyncio.run(asyncio.wait_for(story(), 30))


ANSWERS = {
    "sized": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX: 1\r\n\r\nhe\r\n\r\nllo",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;a=b\r\nhe\r\n\r\n4\r\n\r\nlo\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "no content": b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "tunnel": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nfrom\r\n\r\nnow on",
    "until it closes": b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\nhello\r\n\r\n",
    "timed out": b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "malformed": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
}


def read_whole(raw: bytes) -> tuple[bytes, bytes, bytes]:
    """Heads, payload and trailers of what a client got, without what differs from answer to answer."""
    heads = b""
    while raw.startswith(b"HTTP/1.1 "):
        head, _, raw = raw.partition(b"\r\n\r\n")
        heads += (
            b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"x-request-id")) + b"\r\n\r\n"
        )
    if b"transfer-encoding: chunked" in heads:
        body = Chunked()
        payload = body.feed(raw)
        assert body.done
        return heads, payload, body.trailers
    return heads, re.sub(rb'"trace_id":"[0-9a-f]+"', b"", raw), b""


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_in_any_pieces_gives_what_the_whole_gives(name):
    said = ANSWERS[name]

    async def story():
        asked = asyncio.Queue[None]()

        async def instance(reader, writer):
            while True:
                await read_request(reader)
                asked.put_nowait(None)

        async def answered(g, path: str, pieces: list[bytes]) -> tuple[bytes, bytes, bytes]:
            async with await g.client() as client:
                upgrade = ["Connection: upgrade, te", "Upgrade: x"] if name == "tunnel" else ["Connection: close, te"]
                client.send(request(path, *upgrade, "TE: trailers"))
                await asked.get()
                (connection,) = [c for c in g.listener.connections if c.exchange is not None]
                upstream = connection.exchange.upstream
                for piece in pieces:
                    if upstream.exchange is not None:
                        upstream.data_received(piece)
                if upstream.exchange is not None:
                    upstream.transport.close()
                got = await asyncio.wait_for(client.reader.read(), 10)
            await until(lambda: not g.listener.connections)
            return read_whole(got)

        async with gate() as g:
            path = await g.serve(instance)
            wanted = await answered(g, path, [said])
            for at in range(1, len(said)):
                assert await answered(g, path, [said[:at], said[at:]]) == wanted, at
            assert await answered(g, path, [said[at : at + 1] for at in range(len(said))]) == wanted
            (activity,) = g.listener.activities.all()
            assert activity.in_flight == 0

    asyncio.run(asyncio.wait_for(story(), 20))


MANY = (
    request("PATH", method="POST", body=b"hello\r\n\r\nworld")
    + request("PATH", "Expect: 100-continue", method="PUT", body=b"later")
    + request("PATH", "TE: trailers", "Transfer-Encoding: chunked", method="POST")
    + CHUNKED
    + b"\r\n"
    + request("PATH")
    + request("/gateway/nowhere")
    + request("PATH")
)


def test_pipelined_requests_of_every_kind_cut_anywhere_are_answered_in_order():
    async def echo(reader, writer):
        while True:
            head, body = await read_request(reader)
            if b"transfer-encoding" in head.lower():
                body = b"".join([piece async for piece in Client(reader, writer).chunks()])
            said = head.split(b" ")[0] + body
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))

    async def story():
        async with gate() as g:
            whole = MANY.replace(b"PATH", (await g.serve(echo)).encode())

            async def answered(pieces: list[bytes]) -> list[tuple[int, bytes]]:
                async with await g.client() as client:
                    await until(lambda: len(g.listener.connections) == 1)
                    (connection,) = g.listener.connections
                    for piece in pieces:
                        connection.data_received(piece)
                    got = [await client.answer() for _ in range(6)]
                await until(lambda: not g.listener.connections)
                return [(answer.status, answer.body if answer.status == 200 else b"") for answer in got]

            wanted = await answered([whole])
            assert wanted == [
                (200, b"POSThello\r\n\r\nworld"),
                (200, b"PUTlater"),
                (200, b"POSThello world"),
                (200, b"GET"),
                (404, b""),
                (200, b"GET"),
            ]
            for at in range(1, len(whole)):
                assert await answered([whole[:at], whole[at:]]) == wanted, at
            assert await answered([whole[at : at + 1] for at in range(len(whole))]) == wanted

    asyncio.run(asyncio.wait_for(story(), 20))

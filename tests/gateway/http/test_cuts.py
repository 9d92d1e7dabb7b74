"""However a request is cut on its way, it is the same request."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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

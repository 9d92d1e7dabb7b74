"""The control listener keeps the rules of the data listener, before anybody is asked for a token."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bema.core.limits import DEFAULTS
from bema.gateway.routing.decision import Hosts
from bema.gateway.server import Embedded
from tests.gateway.gate import Client, request, until
from tests.gateway.http.test_heads import SMUGGLING
from tests.gateway.http.test_listener import run


class Api:
    """A control listener over an app that answers with the method, the path and the body it was sent."""

    def __init__(self, server: Embedded, port: int, asked: list[str]) -> None:
        self.server = server
        self.port = port
        self.asked = asked

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=2**20))

    async def connected(self, count: int) -> None:
        await until(lambda: len(self.server.server_state.connections) == count)


@asynccontextmanager
async def api(named: str = "", **limits: Any) -> AsyncIterator[Api]:
    asked: list[str] = []

    async def app(scope, receive, send):
        asked.append(scope["path"])
        body = b""
        while scope["path"] != "/deaf":
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        said = f"{scope['method']} {scope['path']} ".encode() + body
        headers = [(b"content-length", str(len(said)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})

    listener = socket.create_server(("127.0.0.1", 0))
    server = Embedded(app, DEFAULTS.but(**{"drain": 1, **limits}), Hosts(named=named))
    serving = asyncio.create_task(server.serve([listener]))
    await server.accepting.wait()
    try:
        yield Api(server, listener.getsockname()[1], asked)
    finally:
        server.should_exit = True
        await serving


@pytest.mark.parametrize("name", SMUGGLING)
def test_what_two_parsers_could_read_differently_is_refused(name):
    async def story():
        async with api() as a, await a.client() as client:
            client.send(SMUGGLING[name] + b"0\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.error["code"]) == (400, "bad_request")
            assert answer.headers["connection"] == "close"
            assert await client.closed()
            assert a.asked == []

    run(story())


@pytest.mark.parametrize(
    "lines", ["Host: evil.example", "Host: 10.0.0.1:8701", "Host: localhost\r\nOrigin: http://evil.example"]
)
def test_a_foreign_host_or_origin_is_refused_with_its_remedy(lines):
    async def story():
        async with api() as a, await a.client() as client:
            client.send(f"GET /x HTTP/1.1\r\n{lines}\r\n\r\n".encode() + request("/y"))
            answer = await client.answer()
            assert (answer.status, answer.error["code"]) == (403, "forbidden")
            assert "setting hosts" in answer.error["fix"]
            assert await client.closed()
            assert a.asked == []

    run(story())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8701", "[::1]:8701", "bema.example:443"])
def test_the_names_of_this_machine_and_those_that_are_set_are_answered(host):
    async def story():
        async with api("bema.example") as a, await a.client() as client:
            client.send(f"GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert (await client.answer()).body == b"GET /x "

    run(story())


WHOLE = (
    request("/1", method="POST", body=b"hello\r\n\r\nworld")
    + request("/2")
    + request("/3", "Transfer-Encoding: chunked", method="POST")
    + b"5\r\nhello\r\n6;x=1\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"
    + request("/4", "Expect: 100-continue", method="PUT", body=b"later")
    + request("/deaf")
)
ANSWERS = [b"POST /1 hello\r\n\r\nworld", b"GET /2 ", b"POST /3 hello world", b"PUT /4 later", b"GET /deaf "]


async def answers(client: Client) -> list[bytes]:
    got: list[bytes] = []
    while len(got) < len(ANSWERS):
        answer = await client.answer()
        if answer.status != 100:
            got.append(answer.body)
    return got


@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=12))
@settings(max_examples=60, deadline=None)
def test_requests_in_any_pieces_give_what_the_whole_gives(cuts):
    async def story():
        async with api() as a, await a.client() as client:
            await a.connected(1)
            (connection,) = a.server.server_state.connections
            for start, end in pairwise(sorted({0, *cuts, len(WHOLE)})):
                connection.data_received(WHOLE[start:end])
                await asyncio.sleep(0)
            assert await answers(client) == ANSWERS

    run(story())


def test_requests_that_come_byte_by_byte_give_what_the_whole_gives():
    async def story():
        async with api() as a, await a.client() as client:
            await a.connected(1)
            (connection,) = a.server.server_state.connections
            for at in range(len(WHOLE)):
                connection.data_received(WHOLE[at : at + 1])
            assert await answers(client) == ANSWERS

    run(story())


@pytest.mark.parametrize("extension", [b" ;x", b"\t; x = y", b';x="a;b"'])
def test_what_the_grammar_allows_is_read_alike_at_both_listeners(extension):
    async def story():
        async with api() as a, await a.client() as client:
            head = request("/x", "Transfer-Encoding: chunked", method="POST")
            client.send(head + b"5" + extension + b"\r\nhello\r\n0" + extension + b"\r\n\r\n")
            assert (await client.answer()).body == b"POST /x hello"

    run(story())


def test_a_body_that_turns_out_bad_before_it_is_asked_for_leaves_no_trace_in_the_log(caplog):
    async def story():
        async with api() as a, await a.client() as client:
            head = request("/x", "Transfer-Encoding: chunked", "Expect: 100-continue", method="POST")
            client.send(head + b"zz\r\n")
            assert (await client.answer()).status == 400
            assert await client.closed()

    run(story())
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("body", [b"", b"hello"])
def test_an_upgrade_is_answered_as_what_it_is_without_one(body):
    async def story():
        async with api() as a, await a.client() as client:
            asked = request("/x", "Connection: Upgrade", "Upgrade: websocket", "UPGRADE: h2c", method="POST", body=body)
            client.send(asked + request("/y"))
            assert (await client.answer()).body == b"POST /x " + body
            assert (await client.answer()).body == b"GET /y "

    run(story())


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 300, 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a: 1\r\n" * 300, 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a: 1\r\n" * 30 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (request("/x", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n", 400),
    ],
)
def test_heads_and_bodies_have_limits(sent, status):
    async def story():
        async with api(http_head=256, http_headers=10) as a, await a.client() as client:
            client.send(sent)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (status, "close")
            assert await client.closed()

    run(story())


async def drip(client: Client, piece: bytes) -> None:
    """Send something small again and again, as long as the other side takes it."""
    try:
        while True:
            client.send(piece)
            await client.writer.drain()
            await asyncio.sleep(0.02)
    except ConnectionError:
        pass


@pytest.mark.parametrize(
    ("sent", "piece"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"x"),
        (request("/x") + b"GE", b""),
        (request("/x", "Content-Length: 100", method="POST") + b"half", b""),
        # its answer needed no body
        (request("/deaf", "Content-Length: 1000000", method="POST"), b"x"),
    ],
)
def test_what_is_silent_or_slow_is_closed(sent, piece):
    async def story():
        async with api(http_head_time=0.3, http_idle=0.3, http_body_idle=0.3) as a, await a.client() as client:
            client.send(sent)
            dripping = asyncio.create_task(drip(client, piece))
            assert await client.closed(8)
            await a.connected(0)
            dripping.cancel()

    run(story())


def test_a_connection_over_the_cap_is_told_so_before_it_asks():
    async def story():
        async with api(http_connections=1) as a, await a.client() as first:
            await a.connected(1)
            async with await a.client() as second:
                answer = await second.answer()
                assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
            first.send(request("/x"))
            assert (await first.answer()).status == 200

    run(story())

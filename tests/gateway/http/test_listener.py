"""The data listener between a bare socket and instances that behave."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.gate import OK, gate, read_request, request, says_ok
from tests.gateway.http.test_heads import SMUGGLING

pytestmark = pytest.mark.usefixtures("every_loop")

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def run(story):
    asyncio.run(asyncio.wait_for(story, 30))


def test_a_request_reaches_its_instance_and_the_answer_comes_back():
    seen = []

    async def instance(reader, writer):
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 201 Made\r\ncontent-length: 4\r\nx-own: 1\r\nconnection: keep-alive\r\n\r\nmade")

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            answer = await g.ask(
                request(f"{path}/things?x=%2F", "Authorization: Bearer t", method="POST", body=b"hello")
            )
            assert (answer.status, answer.body, answer.headers["x-own"]) == (201, b"made", "1")
            head, body = seen[0]
            assert head.startswith(b"POST /things?x=%%2F HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % g.port)
            assert b"\r\nAuthorization: Bearer t\r\n" in head
            assert b"\r\nx-forwarded-prefix: %b\r\n" % path.encode() in head
            assert b"\r\nx-request-id: %b\r\n" % answer.headers["x-request-id"].encode() in head
            assert body == b"hello"

    run(story())


def test_connections_are_kept_on_both_sides():
    connections = 0

    async def instance(reader, writer):
        nonlocal connections
        connections += 1
        await says_ok(reader, writer)

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                for _ in range(5):
                    client.send(request(path))
                    assert (await client.answer()).body == b"ok"
            assert (await g.get(path)).body == b"ok"
            assert connections == 1

    run(story())


def test_pipelined_requests_are_answered_in_order():
    async def instance(reader, writer):
        while True:
            head, body = await read_request(reader)
            said = head.split(b" ")[1] + body
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(b"".join(request(f"{path}/{n}", method="POST", body=b"=%d" % n) for n in range(50)))
                client.send(request("/nothing") + request(f"{path}/last"))
                assert [(await client.answer()).body for _ in range(50)] == [b"/%d=%d" % (n, n) for n in range(50)]
                assert (await client.answer()).status == 404
                assert (await client.answer()).body == b"/last"

    run(story())


def test_a_stream_passes_event_by_event():
    go = asyncio.Event()

    async def instance(reader, writer):
        for _ in range(2):
            await read_request(reader)
            writer.write(CHUNKED + b"5\r\nfirst\r\n")
            await go.wait()
            writer.write(b"6\r\nsecond\r\n0\r\nX-Sum: 1\r\n\r\n")
        writer.close()

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path))
                assert b"transfer-encoding: chunked" in await client.head()
                chunks = client.chunks()
                assert await anext(chunks) == b"first"
                go.set()
                assert [piece async for piece in chunks] == [b"second"]
                go.clear()
                client.send(request(path, "TE: trailers"))
                await client.head()
                assert await anext(client.chunks()) == b"first"
                go.set()
                rest = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
                assert rest.endswith(b"6\r\nsecond\r\n0\r\nX-Sum: 1\r\n\r\n")

    run(story())


def test_a_chunked_upload_arrives_piece_by_piece():
    first = asyncio.Event()

    async def instance(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\ntransfer-encoding: chunked\r\n" in head
        assert await reader.readexactly(8) == b"3\r\nabc\r\n"
        first.set()
        assert await reader.readexactly(12) == b"2\r\nde\r\n0\r\n\r\n"
        writer.write(OK)

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path, "Transfer-Encoding: chunked", method="POST") + b"3;ext=1\r\nabc\r\n")
                await asyncio.wait_for(first.wait(), 5)
                client.send(b"2\r\nde\r\n0\r\nX-Trailer: dropped\r\n\r\n")
                assert (await client.answer()).body == b"ok"

    run(story())


@pytest.mark.parametrize("length", ["", "content-length: 5\r\n"])
def test_head_has_no_body(length):
    async def instance(reader, writer):
        while True:
            await read_request(reader)
            writer.write(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode())

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                for _ in range(2):
                    client.send(request(path, method="HEAD"))
                    answer = await client.answer("HEAD")
                    assert (answer.status, answer.headers.get("content-length")) == (200, "5" if length else None)

    run(story())


def test_an_answer_that_ends_with_its_connection_is_chunked_for_the_client():
    async def instance(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
        writer.close()

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            answer = await g.get(path)
            assert (answer.body, answer.headers["transfer-encoding"]) == (b"until the end", "chunked")
            old = await g.ask(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            assert (old.body, old.headers["connection"]) == (b"until the end", "close")
            assert "transfer-encoding" not in old.headers

    run(story())


def test_interim_answers_pass_and_so_does_the_expectation():
    async def instance(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nexpect: 100-continue\r\n" in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
        assert await reader.readexactly(5) == b"hello"
        writer.write(OK)

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path, "Expect: 100-continue", "Content-Length: 5", method="PUT"))
                assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
                assert b"103 Early Hints\r\nlink: </x>" in await client.head()
                client.send(b"hello")
                assert (await client.answer()).body == b"ok"

    run(story())


def test_an_upgraded_connection_is_spliced_both_ways():
    ended = asyncio.Event()

    async def instance(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"upgrade: websocket\r\nconnection: upgrade\r\n" in head
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
        while data := await reader.read(100):
            writer.write(data.upper())
        writer.close()
        ended.set()

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path, "Connection: Upgrade", "Upgrade: websocket"))
                head = await client.head()
                assert b" 101 " in head
                assert b"upgrade: websocket\r\nconnection: upgrade\r\n" in head
                assert await client.reader.readexactly(5) == b"hello"
                client.send(b"\x81\x05any bytes")
                assert await client.reader.readexactly(11) == b"\x81\x05ANY BYTES"
            await asyncio.wait_for(ended.wait(), 5)

    run(story())


@pytest.mark.parametrize("name", SMUGGLING)
def test_the_smuggling_corpus_ends_the_connection_and_nothing_arrives(name):
    seen = []

    async def instance(reader, writer):
        seen.append(await reader.read(100))

    async def story():
        async with gate() as g:
            path = (await g.serve(instance)).encode()
            async with await g.client() as client:
                client.send(SMUGGLING[name].replace(b" / ", b" " + path + b"/ ", 1) + b"0\r\n\r\n")
                answer = await client.answer()
                assert (answer.status, answer.error["code"]) == (400, "bad_request")
                assert answer.error["trace_id"] == answer.headers["x-request-id"]
                assert answer.headers["connection"] == "close"
                assert await client.closed()
            assert seen == []

    run(story())


@pytest.mark.parametrize("body", [b"3\nabc\r\n0\r\n\r\n", b"3\r\nabcX\r\n0\r\n\r\n", b"-1\r\n"])
def test_a_bad_chunk_that_comes_with_its_head_is_not_forwarded(body):
    seen = []

    async def instance(reader, writer):
        seen.append(await reader.read(100))

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            answer = await g.ask(request(path, "Transfer-Encoding: chunked", method="POST") + body)
            assert (answer.status, seen) == (400, [])

    run(story())


def test_unknown_paths_and_deployments_are_not_found():
    async def story():
        async with gate() as g:
            for path in ("/", "/gateway/worker/", "/gateway/0b9a7a3c-1111-4222-8333-123456789abc/x"):
                answer = await g.get(path)
                assert (answer.status, answer.error["code"]) == (404, "not_found")

    run(story())


def test_a_page_of_another_site_is_refused():
    async def story():
        async with gate() as g:
            path = await g.serve(says_ok)
            assert (await g.get(path, "Origin: http://evil.example")).status == 403
            assert (await g.get(path, "Origin: http://localhost:3000")).status == 200
            foreign = await g.ask(request(path).replace(b"localhost", b"evil.example"))
            assert (foreign.status, foreign.error["code"]) == (403, "forbidden")

    run(story())


def test_a_draining_listener_finishes_what_runs_and_closes_the_rest():
    asked, go = asyncio.Event(), asyncio.Event()

    async def instance(reader, writer):
        await read_request(reader)
        asked.set()
        await go.wait()
        writer.write(OK)

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as idle, await g.client() as busy:
                busy.send(request(path))
                await asked.wait()
                draining = asyncio.create_task(g.listener.drain(10))
                assert await idle.closed()
                go.set()
                answer = await busy.answer()
                assert (answer.body, answer.headers["connection"]) == (b"ok", "close")
                assert await busy.closed()
            await asyncio.wait_for(draining, 5)
            with pytest.raises(OSError):
                await g.client()

    run(story())


def test_what_is_counted():
    async def story():
        async with gate() as g:
            path = await g.serve(says_ok)
            for _ in range(3):
                await g.get(path)
            (activity,) = g.listener.activities.all()
            assert (activity.answers[2], activity.in_flight, sum(activity.histogram)) == (3, 0, 3)
            assert activity.last_access > 0

    run(story())

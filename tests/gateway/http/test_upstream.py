"""Connections to instances: every way in which a kept one may have ended, and answers that are too much."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time

import pytest

from bema.core.naming import show_instance_id
from tests.gateway.gate import OK, gate, read_request, request, until
from tests.gateway.http.test_listener import run

pytestmark = pytest.mark.usefixtures("every_loop")


def closes(writer: asyncio.StreamWriter) -> None:
    writer.close()


def resets(writer: asyncio.StreamWriter) -> None:
    bare: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # a Unix socket has no linger, and says reset where bytes were unread
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def ends_its_side(writer: asyncio.StreamWriter) -> None:
    writer.write_eof()


def gives_up(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    writer.close()


WAYS = [closes, resets, ends_its_side, gives_up]


@pytest.mark.parametrize("end", WAYS)
def test_an_instance_that_ends_each_connection_after_its_answer_unannounced_is_not_felt(end):
    async def instance(reader, writer):
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        end(writer)

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                for _ in range(300):
                    client.send(request(path))
                    assert (await client.answer()).status == 200
            (activity,) = g.listener.activities.all()
            assert (activity.upstream_failures, activity.in_flight) == (0, 0)

    run(story())


@pytest.mark.parametrize("end", [closes, resets, gives_up])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_what_may_run_twice_is_sent_again_when_its_connection_ended_before_a_byte_came(end, method):
    seen: list[bytes] = []

    async def story():
        answered, sent = asyncio.Event(), asyncio.Event()

        async def instance(reader, writer):
            if seen:
                seen.append(b"".join(await read_request(reader)))
                writer.write(OK)
                return
            seen.append(b"".join(await read_request(reader)))
            # the second request arrives, and is not read
            writer.transport.pause_reading()
            writer.write(OK)
            answered.set()
            await sent.wait()
            end(writer)

        async with gate() as g:
            path = await g.serve(instance)
            body = b"all of it" if method == "PUT" else b""
            async with await g.client() as client:
                client.send(request(path))
                assert (await client.answer()).status == 200
                client.send(request(path, method=method, body=body))
                await until(lambda: any(c.exchange is not None for c in g.listener.connections))
                sent.set()
                assert (await client.answer(method)).status == 200
            assert len(seen) == 2
            assert seen[1].startswith(method.encode())
            assert seen[1].endswith(b"\r\n\r\n" + body)
            (activity,) = g.listener.activities.all()
            assert activity.in_flight == 0

    run(story())


def test_what_its_instance_had_read_when_it_died_is_told_and_not_repeated():
    lives = 0

    async def instance(reader, writer):
        nonlocal lives
        lives += 1
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)
        writer.close()

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path))
                assert (await client.answer()).status == 200
                client.send(request(path))
                answer = await client.answer()
                assert (answer.status, answer.error["code"]) == (502, "disconnected")
            assert lives == 1

    run(story())


@pytest.mark.parametrize("end", [closes, resets, ends_its_side])
@pytest.mark.parametrize(
    "pieces",
    [
        [request("PATH", method="POST", body=b"x")],
        [request("PATH", method="PATCH")],
        [request("PATH", method="PUT", body=b"half sent")[:-4]],
        [request("PATH", "Transfer-Encoding: chunked", method="PUT"), b"4\r\nhalf\r\n"],
    ],
)
def test_what_must_not_run_twice_is_sent_once(end, pieces):
    heads = 0

    async def instance(reader, writer):
        nonlocal heads
        await read_request(reader)
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")
        heads += 1
        end(writer)

    async def story():
        async with gate() as g:
            path = (await g.serve(instance)).encode()
            async with await g.client() as client:
                client.send(request(path.decode()))
                assert (await client.answer()).status == 200
                for piece in pieces:
                    client.send(piece.replace(b"PATH", path))
                assert (await client.answer()).status == 502
            assert heads == 1

    run(story())


@pytest.mark.parametrize(("begun", "connections"), [(b"HTTP/1.1 2", 1), (b"HTTP/1.1 103 Early Hints\r\n\r\n", 1)])
def test_what_began_to_answer_is_not_repeated(begun, connections):
    lives = 0

    async def instance(reader, writer):
        nonlocal lives
        lives += 1
        if lives == 1:
            await read_request(reader)
            writer.write(OK)
        await read_request(reader)
        writer.write(begun)
        await writer.drain()
        writer.close()

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path))
                assert (await client.answer()).status == 200
                client.send(request(path))
                answer = await client.answer()
                if answer.status == 103:
                    answer = await client.answer()
                assert (answer.status, answer.error["code"]) == (502, "disconnected")
            assert lives == connections
            (activity,) = g.listener.activities.all()
            assert (activity.upstream_failures, activity.in_flight) == (1, 0)

    run(story())


def test_a_client_that_leaves_while_its_request_is_repeated_is_counted_out():
    lives = 0

    async def story():
        sent = asyncio.Event()

        async def instance(reader, writer):
            nonlocal lives
            lives += 1
            await read_request(reader)
            if lives == 1:
                writer.transport.pause_reading()
                writer.write(OK)
                await sent.wait()
                writer.close()

        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path))
                assert (await client.answer()).status == 200
                client.send(request(path))
                await until(lambda: any(c.exchange is not None for c in g.listener.connections))
                sent.set()
                await until(lambda: lives == 2)
            (activity,) = g.listener.activities.all()
            await until(lambda: activity.in_flight == 0)

    run(story())


def test_a_post_takes_no_connection_whose_end_has_come():
    ended = 0

    async def has_ended(count: int) -> None:
        await until(lambda: ended == count)

    async def instance(reader, writer):
        nonlocal ended
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        writer.transport.abort()
        ended += 1

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                for count in range(1, 50):
                    client.send(request(path, method="POST", body=b"x"))
                    assert (await client.answer()).status == 200
                    await has_ended(count)

    run(story())


def lines(count: int, size: int = 1) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + b"".join(
        b"Set-Cookie: c%d=%b\r\n" % (n, b"v" * size) for n in range(count)
    )


def test_an_answer_with_hundreds_of_headers_passes():
    async def instance(reader, writer):
        await read_request(reader)
        writer.write(lines(98) + b"X-A: 1\r\nX-B: 2\r\n" * 400 + b"\r\n")

    async def story():
        async with gate() as g:
            answer = await g.get(await g.serve(instance))
            assert answer.status == 200
            assert answer.head.count(b"Set-Cookie: ") == 98
            assert answer.head.count(b"X-A: 1") == 400

    run(story())


@pytest.mark.parametrize(
    ("head", "limit"), [(lines(30), "http_answer_headers"), (lines(3, 5000), "http_head"), (lines(1), "")]
)
def test_an_answer_over_a_limit_names_the_limit_and_the_instance(head: bytes, limit: str, caplog):
    async def instance(reader, writer):
        await read_request(reader)
        writer.write(head + b"\r\n")

    async def story():
        async with gate(answer_headers=20, head=8192) as g:
            path = await g.serve(instance)
            with caplog.at_level(logging.WARNING, logger="bema.gateway"):
                answer = await g.get(path)
            if not limit:
                assert (answer.status, caplog.records) == (200, [])
                return
            assert (answer.status, answer.error["code"]) == (502, "bad_upstream")
            assert limit in answer.error["message"]
            assert limit in answer.error["fix"]
            (record,) = caplog.records
            (shown,) = (await g.discovery.view()).instances()
            assert limit in record.getMessage()
            assert show_instance_id(shown.id) in record.getMessage()
            assert path.removeprefix("/gateway/") in record.getMessage()
            assert record.trace_id == answer.headers["x-request-id"]

    run(story())


@pytest.mark.parametrize("status", [600, 700, 999])
def test_a_status_of_no_class_passes_and_is_counted_with_the_failures(status, caplog):
    async def instance(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 %d Odd\r\ncontent-length: 2\r\n\r\nok" % status)

    async def story():
        async with gate() as g:
            answer = await g.get(await g.serve(instance))
            assert (answer.status, answer.body) == (status, b"ok")
            (activity,) = g.listener.activities.all()
            assert (activity.answers[5], activity.in_flight) == (1, 0)

    run(story())
    assert caplog.records == []


def test_a_switch_to_no_protocol_is_named():
    async def instance(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")

    async def story():
        async with gate() as g:
            answer = await g.get(await g.serve(instance), "Connection: upgrade", "Upgrade: x")
            assert (answer.status, answer.error["code"]) == (502, "bad_upstream")
            assert "without naming" in answer.error["message"]

    run(story())


@pytest.mark.parametrize("pause", [0.0, 0.001, 0.01])
def test_an_instance_of_blocking_sockets_that_closes_after_each_answer_is_not_felt(pause):
    def answers(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                with accepted:
                    accepted.recv(65536)
                    accepted.sendall(OK)
                    time.sleep(pause)

    async def story():
        async with gate() as g:
            listener = socket.create_server(("127.0.0.1", 0))
            serving = asyncio.create_task(asyncio.to_thread(answers, listener))
            deployment, _ = g.show(f"tcp:127.0.0.1:{listener.getsockname()[1]}")
            async with await g.client() as client:
                for _ in range(300):
                    client.send(request(f"/gateway/{deployment}"))
                    assert (await client.answer()).status == 200
            listener.shutdown(socket.SHUT_RDWR)
            await serving
            listener.close()

    run(story())

"""The data listener when somebody misbehaves: an instance, a client, or the time."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import tempfile
import time
from pathlib import Path

import msgspec
import pytest

from bema.core.errors import Unavailable
from bema.core.instance import State
from bema.deploy.model.deployment import Activation, Fault
from tests.gateway.gate import OK, Gate, gate, read_request, request, says_ok, until
from tests.gateway.http.test_listener import CHUNKED, run
from tests.streams import unix_server

pytestmark = pytest.mark.usefixtures("every_loop")

ID = "0b9a7a3c-1111-4222-8333-123456789abc"
PATH = f"/gateway/{ID}"
FAULT = Fault("start_failed", "hello: exited with code 3", "mend it", detail="why", log=("a", "b"))


# Instances


def test_an_instance_that_dies_while_it_answers_gives_502_and_the_next_request_works():
    lives = 0

    async def instance(reader, writer):
        nonlocal lives
        lives += 1
        await read_request(reader)
        if lives == 1:
            writer.transport.abort()
            return
        writer.write(OK)

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path, method="POST", body=b"x"))
                answer = await client.answer()
                assert (answer.status, answer.error["code"]) == (502, "disconnected")
                assert answer.headers["x-request-id"] == answer.error["trace_id"]
                client.send(request(path))
                assert (await client.answer()).body == b"ok"
            (activity,) = g.listener.activities.all()
            assert (activity.upstream_failures, activity.in_flight) == (1, 0)

    run(story())


@pytest.mark.parametrize("begun", [CHUNKED + b"5\r\nfirst\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\npart"])
def test_an_answer_that_was_cut_is_seen_to_be_cut(begun):
    async def instance(reader, writer):
        await read_request(reader)
        writer.write(begun)
        await writer.drain()
        writer.transport.abort()

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path))
                head = await client.head()
                assert b" 200 " in head
                rest = await asyncio.wait_for(client.reader.read(), 5)
                assert rest in (b"", b"5\r\nfirst\r\n", b"part")

    run(story())


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        b"\x00\x01\x02",
    ],
)
def test_an_instance_that_does_not_speak_http_is_named(said):
    async def instance(reader, writer):
        await read_request(reader)
        writer.write(said)

    async def story():
        async with gate() as g:
            answer = await g.get(await g.serve(instance))
            assert (answer.status, answer.error["code"]) == (502, "bad_upstream")

    run(story())


def test_what_an_instance_says_unasked_is_never_an_answer():
    async def instance(reader, writer):
        await read_request(reader)
        writer.write(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                for _ in range(3):
                    client.send(request(path))
                    answer = await client.answer()
                    assert (answer.status, answer.body) == (200, b"ok")

    run(story())


def test_an_instance_that_answers_early_ends_the_upload():
    async def instance(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno")

    async def story():
        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path, "Content-Length: 1000000", method="POST") + b"x" * 1000)
                answer = await client.answer()
                assert (answer.status, answer.headers["connection"]) == (401, "close")
                assert await client.closed()

    run(story())


def test_a_failed_dial_waits_for_the_record_to_leave_and_asks_for_another_instance():
    asked = []

    async def story():
        async with gate(activate=None) as g:
            _, dead = g.show("unix:/nowhere.sock", ID)
            made: Gate = g

            async def activate(deployment: str, wait: float) -> Activation:
                asked.append(deployment)
                await made.serve(says_ok, ID)
                return Activation("ready")

            g.listener.dispatcher.activator._activate = activate
            waiting = asyncio.create_task(g.get(PATH))
            await until(lambda: g.listener.activities.of(ID).upstream_failures)
            g.discovery.drop(dead)
            assert (await waiting).body == b"ok"
            assert asked == [ID]

    run(story())


def test_an_instance_that_is_never_reached_is_unavailable():
    async def story():
        async with gate() as g:
            g.show("unix:/nowhere.sock", ID)
            answer = await g.get(PATH)
            assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "unavailable", "1")

    run(story())


# The kept listener


def kept_listener(g):
    """A listener that nobody accepts from, shown as an instance; returns deployment path, instance and socket."""
    path = Path(tempfile.mkdtemp(prefix="bema-kept-"), "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    deployment, instance = g.show(f"unix:{path}")
    return deployment, instance, listener


def test_a_request_in_the_backlog_of_a_dead_instance_gets_the_answer_that_a_new_one_would():
    async def activate(deployment: str, wait: float) -> Activation:
        return Activation("crash_loop", 7, FAULT)

    async def story():
        async with gate(activate) as g:
            deployment, instance, listener = kept_listener(g)
            with listener:
                asking = asyncio.create_task(g.get(f"/gateway/{deployment}"))
                await until(lambda: select.select([listener], [], [], 0)[0])
                g.discovery.drop(instance)
                answer = await asking
                assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "crash_loop", "7")

    run(story())


def test_a_request_in_the_backlog_is_answered_by_the_next_instance():
    asked = asyncio.Event()

    async def activate(deployment: str, wait: float) -> Activation:
        asked.set()
        return Activation("ready")

    async def story():
        async with gate(activate) as g:
            deployment, instance, listener = kept_listener(g)
            asking = asyncio.create_task(g.get(f"/gateway/{deployment}"))
            await until(lambda: select.select([listener], [], [], 0)[0])
            g.discovery.drop(instance)
            await asyncio.wait_for(asked.wait(), 5)
            g.show(f"unix:{listener.getsockname()}", deployment)
            async with unix_server(says_ok, sock=listener):
                assert (await asking).body == b"ok"

    run(story())


def test_an_instance_that_drains_finishes_what_it_took():
    async def story():
        taken, go = asyncio.Event(), asyncio.Event()

        async def slow(reader, writer):
            await read_request(reader)
            taken.set()
            await go.wait()
            writer.write(OK)

        async with gate() as g:
            path = await g.serve(slow)
            asking = asyncio.create_task(g.get(path))
            await asyncio.wait_for(taken.wait(), 5)
            [shown] = g.listener.table.instances_of(path.rpartition("/")[2]).instances()
            g.discovery.put(msgspec.structs.replace(shown, state=State.DRAINING))
            g.listener._pending.look([c.exchange for c in g.listener.connections if c.exchange is not None])
            assert not g.listener._pending._asking
            go.set()
            assert (await asking).body == b"ok"

    run(story())


# Waking


def test_requests_to_a_cold_deployment_ask_once_and_all_wait():
    asked = 0

    async def story():
        go = asyncio.Event()

        async def activate(deployment: str, wait: float):
            nonlocal asked
            asked += 1
            await go.wait()
            return Activation("ready")

        async with gate(activate) as g:
            waiting = [asyncio.create_task(g.get(f"{PATH}/{n}")) for n in range(100)]
            await until(lambda: asked)
            go.set()
            await g.serve(says_ok, ID)
            answers = await asyncio.gather(*waiting)
            assert {answer.body for answer in answers} == {b"ok"}
            assert asked == 1

    run(story())


@pytest.mark.parametrize(
    ("activation", "status", "code", "retry"),
    [
        (Activation("building", 3), 503, "building", "3"),
        (Activation("building"), 503, "building", "2"),
        (Activation("starting"), 504, "starting", "2"),
        (Activation("build_failed", error=FAULT), 424, "build_failed", None),
        (Activation("start_failed", error=FAULT), 503, "start_failed", None),
        (Activation("crash_loop", 7, FAULT), 503, "crash_loop", "7"),
    ],
)
def test_what_stands_in_the_way_of_a_start_is_told(activation, status, code, retry):
    async def activate(deployment: str, wait: float):
        return activation

    async def story():
        async with gate(activate) as g:
            answer = await g.get(PATH)
            assert (answer.status, answer.error["code"], answer.headers.get("retry-after")) == (status, code, retry)
            if activation.error is not None:
                assert (answer.error["message"], answer.error["log"]) == ("hello: exited with code 3", ["a", "b"])

    run(story())


def marked(g, path, **marks):
    """Rewrite the record of the instance behind `path`."""
    [shown] = g.listener.table.instances_of(path.rpartition("/")[2]).instances()
    g.discovery.put(msgspec.structs.replace(shown, **marks))


def waiters(g):
    return list(g.listener.dispatcher.admission.lines().values())


@pytest.mark.parametrize("marks", [{"ready": False}, {"stalled": True}])
def test_requests_to_an_instance_that_takes_nothing_new_wait_until_it_does(marks):
    taken = []

    async def instance(reader, writer):
        taken.append(await read_request(reader))
        writer.write(OK)

    async def story():
        async with gate() as g:  # whoever asks the orchestrator is told that there is no such deployment
            path = await g.serve(instance)
            marked(g, path, **marks)
            waiting = [asyncio.create_task(g.get(path)) for _ in range(3)]
            await until(lambda: waiters(g) == [3])
            assert taken == []
            marked(g, path, ready=True, stalled=False)
            assert {answer.body for answer in await asyncio.gather(*waiting)} == {b"ok"}
            assert len(taken) == 3

    run(story())


def test_an_instance_that_takes_nothing_new_for_too_long_is_not_ready_in_time():
    async def story():
        async with gate(start=0.05) as g:
            path = await g.serve(says_ok)
            marked(g, path, ready=False)
            answer = await g.get(path)
            assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (504, "starting", "1")

    run(story())


def test_one_that_takes_nothing_new_and_goes_is_followed_by_the_next():
    async def story():
        async def activate(deployment: str, wait: float):
            await g.serve(says_ok, deployment)
            return Activation("ready")

        async with gate(activate) as g:
            path = await g.serve(says_ok)
            marked(g, path, ready=False)
            waiting = asyncio.create_task(g.get(path))
            await until(lambda: waiters(g) == [1])
            marked(g, path, state=State.DRAINING)
            assert (await waiting).body == b"ok"

    run(story())


def test_one_that_died_while_it_was_called_ready_is_asked_about_again():
    said = [Activation("ready"), Activation("crash_loop", 7, FAULT)]

    async def activate(deployment: str, wait: float) -> Activation:
        return said.pop(0)

    async def story():
        async with gate(activate) as g:
            answer = await asyncio.wait_for(g.get(PATH), 2)
            assert (answer.status, answer.error["code"]) == (503, "crash_loop")

    run(story())


def test_an_absent_orchestrator_stops_only_what_is_cold():
    async def activate(deployment: str, wait: float) -> Activation:
        raise Unavailable("no instance of bema.orchestrator.activate is there")

    async def story():
        async with gate(activate) as g:
            warm = await g.serve(says_ok)
            answer = await g.get(PATH)
            assert (answer.status, answer.error["code"]) == (503, "unavailable")
            assert (await g.get(warm)).body == b"ok"

    run(story())


def test_a_start_beyond_the_limit_is_504_and_a_full_queue_503():
    async def activate(deployment: str, wait: float) -> Activation:
        await asyncio.sleep(wait)
        return Activation("starting")

    async def story():
        async with gate(activate, start=0.3, waiters=2) as g:
            answers = await asyncio.gather(*(g.get(PATH) for _ in range(5)))
            assert sorted(answer.status for answer in answers) == [503, 503, 503, 504, 504]

    run(story())


def test_a_client_that_leaves_a_cold_start_is_forgotten():
    cancelled = asyncio.Event()

    async def activate(deployment: str, wait: float) -> Activation:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async def story():
        async with gate(activate) as g:
            async with await g.client() as client:
                client.send(request(PATH))
                await until(lambda: g.listener.dispatcher.activator._questions)
            await asyncio.wait_for(cancelled.wait(), 2)

    run(story())


# Clients


def test_a_client_that_leaves_is_felt_by_the_instance_within_a_second():
    async def story():
        left = asyncio.Event()

        async def instance(reader, writer):
            await read_request(reader)
            writer.write(CHUNKED + b"5\r\nfirst\r\n")
            assert await reader.read() == b""
            left.set()

        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path))
                await client.head()
            await asyncio.wait_for(left.wait(), 1)

    run(story())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_413_and_wakes_nobody_when_it_was_declared(chunked):
    asked = []

    async def activate(deployment: str, wait: float) -> Activation:
        asked.append(deployment)
        return Activation("building")

    async def story():
        async with gate(activate, body=1000) as g:
            path = await g.serve(says_ok) if chunked else PATH
            header = "Transfer-Encoding: chunked" if chunked else "Content-Length: 1073741824"
            async with await g.client() as client:
                client.send(request(path, header, method="POST"))
                with contextlib.suppress(ConnectionError):
                    for _ in range(20):
                        client.send(b"64\r\n" + b"x" * 100 + b"\r\n")
                        await client.writer.drain()
                answer = await client.answer()
                assert (answer.status, answer.error["code"]) == (413, "too_large")
                assert asked == []

    run(story())


def test_a_head_that_comes_too_slowly_is_given_up():
    async def story():
        async with gate(head_time=0.3, idle=0.3) as g, await g.client() as slow, await g.client() as silent:
            slow.send(b"GET / HTTP/1.1\r\nHost: loc")
            answer = await slow.answer()
            assert (answer.status, answer.error["code"]) == (408, "request_timeout")
            assert await slow.closed()
            assert await silent.closed()

    run(story())


def test_a_body_that_stops_coming_is_given_up():
    async def story():
        async with gate(body_idle=0.3) as g:
            path = await g.serve(says_ok)
            answer = await g.ask(request(path, "Content-Length: 10", method="POST") + b"abc")
            assert answer.status == 408

    run(story())


def test_a_head_that_is_too_long_is_431():
    async def story():
        async with gate(head=1000) as g:
            assert (await g.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 2000)).status == 431
            assert (await g.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 2000 + b"\r\n\r\n")).status == 431

    run(story())


def test_bytes_that_cannot_become_a_request_are_refused_at_once():
    async def story():
        async with gate() as g:
            begun = time.monotonic()
            assert (await g.ask(b"\x16\x03\x01\x02\x00\x01\x00")).status == 400
            assert (await g.ask(b"GET / HTTP/1.1\nHost: x\n\n")).status == 400
            assert time.monotonic() - begun < 2

    run(story())


def test_a_connection_over_the_cap_is_told_so():
    async def story():
        async with gate(connections=1) as g, await g.client():
            await until(lambda: g.listener.connections)
            answer = await g.get("/")
            assert (answer.status, answer.error["code"]) == (503, "overloaded")

    run(story())


def test_a_slow_reader_stops_its_instance_and_nobody_else():
    sent = 0

    async def endless(reader, writer):
        nonlocal sent
        await read_request(reader)
        writer.write(CHUNKED)
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        while True:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    async def story():
        async with gate() as g:
            path, other = await g.serve(endless), await g.serve(says_ok)
            async with await g.client() as client:
                client.send(request(path))
                await client.head()
                before = -1
                while sent != before:  # until nothing moves any more
                    before = sent
                    await asyncio.sleep(0.3)
                    assert (await g.get(other)).body == b"ok"
                assert sent < 32 * 2**20
                await client.reader.readexactly(sent)  # it goes on when it is read

    run(story())


def test_a_slow_instance_stops_its_client():
    async def story():
        go = asyncio.Event()

        async def instance(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"content-length" in head
            await go.wait()
            body = await reader.readexactly(8_000_000)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n%d" % len(body))

        async with gate() as g:
            path = await g.serve(instance)
            async with await g.client() as client:
                client.send(request(path, "Content-Length: 8000000", method="POST"))
                client.writer.write(b"x" * 8_000_000)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.writer.drain(), 0.5)
                go.set()
                assert (await client.answer()).body == b"8000000"

    run(story())

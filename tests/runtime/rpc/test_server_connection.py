"""The callee's end of a connection, spoken to frame by frame: order, refusals, and peers that break the protocol."""

import asyncio
import contextlib
import struct
from typing import Any

import msgspec
import pytest

from bema.core.call import Call
from bema.core.limits import DEFAULTS
from bema.core.settings import current
from bema.wire.rpc import failures
from bema.wire.rpc import frames as f
from bema.wire.values import codecs
from tests.runtime.served import Served, serving, stream, unary, until
from tests.wire.feeding import fed, open_reader

pytestmark = pytest.mark.usefixtures("each_loop")


class Peer:
    """A caller that speaks in frames of its own making."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = open_reader()
        self._got: list[Any] = []

    @classmethod
    async def to(cls, served: Served, token: str = "token 1") -> "Peer":
        where = (await served.discovery.view()).instances()[0].addresses["rpc"][0]
        peer = cls(*await asyncio.open_unix_connection(where.removeprefix("unix:")))
        peer.write(f.pack_hello(f.Hello(token=token)))
        return peer

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def say(self, *messages: Any) -> None:
        self.write(f.pack(list(messages)))

    async def hear(self) -> tuple[int, int, Any]:
        """The next message; EOFError when the server hung up."""
        async with asyncio.timeout(5):
            while not self._got:
                data = await self._reader.read(65536)
                if not data:
                    raise EOFError
                self._got += fed(self._frames, data)
        message, self._got = tuple(self._got[:3]), self._got[3:]
        return message

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(tmp_path, **options):
    async with serving("unix", tmp_path) as served:
        ran: list[str] = []

        @served.handler(unary("echo", x=int))
        async def echo(call: Call) -> Any:
            ran.append("echo")
            return call.arguments["x"]

        @served.handler(unary("wait"))
        async def wait(call: Call) -> Any:
            ran.append("wait")
            await asyncio.Event().wait()

        @served.handler(stream("letters"))
        async def letters(call: Call) -> Any:
            for letter in "abc":
                yield letter

        await served.start(**options)
        peer = await Peer.to(served)
        _, kind, _ = await peer.hear()
        assert kind == f.HELLO
        try:
            yield served, peer, ran
        finally:
            await peer.close()


def request(name: str, **arguments: Any) -> tuple[Any, ...]:
    return (f"t.t.{name}", None, b"", codecs.pack(arguments))


def test_a_conversation_by_hand(tmp_path):
    async def story():
        async with connected(tmp_path) as (_, peer, _):
            peer.say(1, f.UNARY, request("echo", x=7), 2, f.STREAM, request("letters"), 0, f.PING, None)
            heard = [await peer.hear() for _ in range(5)]
            assert (0, f.PONG, None) in heard
            assert (1, f.ANSWER, codecs.pack(7)) in heard
            first, *others = (codecs.pack(letter) for letter in "abc")
            letters = [(2, f.ITEM, [first]), (2, f.ITEM, others), (2, f.END, False)]
            assert [message for message in heard if message[0] == 2] == letters

    asyncio.run(story())


def test_a_call_cancelled_in_its_own_batch_never_runs(tmp_path):
    async def story():
        async with connected(tmp_path) as (served, peer, ran):
            peer.say(1, f.UNARY, request("wait"), 1, f.CANCEL, None, 2, f.UNARY, request("echo", x=1))
            assert await peer.hear() == (2, f.ANSWER, codecs.pack(1))
            await until(lambda: served.server.inflight == 0)
            assert ran[-1] == "echo"

    asyncio.run(story())


def test_a_call_without_time_is_told_so(tmp_path):
    async def story():
        async with connected(tmp_path) as (_, peer, _):
            peer.say(1, f.UNARY, ("t.t.wait", 0.01, b"", codecs.pack({})))
            ident, kind, body = await peer.hear()
            assert (ident, kind, failures.read_failure(body).code) == (1, f.ERROR, "deadline_exceeded")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("name", "arguments", "code", "refused"),
    [("nothing", {}, "not_found", True), ("echo", {"x": "one"}, "invalid_argument", False)],
)
def test_refusals_and_failures_are_told_apart(name, arguments, code, refused, tmp_path):
    async def story():
        async with connected(tmp_path) as (_, peer, _):
            peer.say(1, f.UNARY, request(name, **arguments))
            failure = failures.read_failure((await peer.hear())[2])
            assert (failure.code, failure.refused) == (code, refused)

    asyncio.run(story())


def test_more_calls_than_the_limit_are_refused_with_a_hint(tmp_path):
    async def story():
        async with connected(tmp_path, settings=current().but(DEFAULTS.but(rpc_calls=2))) as (_, peer, _):
            peer.say(*(part for n in (1, 2, 3) for part in (n, f.UNARY, request("wait"))))
            ident, _, body = await peer.hear()
            failure = failures.read_failure(body)
            assert (ident, failure.code, failure.refused) == (3, "overloaded", True)
            assert failure.retry_after is not None

    asyncio.run(story())


def framed(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


BREACHES = {
    "no msgpack": framed(b"\xc1"),
    "too long": struct.pack("<I", 2**32 - 1),
    "an answer from the caller": f.pack([1, f.ANSWER, b""]),
    "an item from the caller": f.pack([1, f.ITEM, [b""]]),
    "input for no call": f.pack([9, f.INPUT, [b""]]),
    "an unknown kind": f.pack([1, 77, None]),
    "a kind that is no number": f.pack([1, "unary", None]),
    "an id that is no number": f.pack([[1], f.UNARY, request("echo", x=1)]),
    "a second hello": f.pack([0, f.HELLO, {}]),
    "a request without an id": f.pack([0, f.UNARY, request("echo", x=1)]),
    "an id twice": f.pack([5, f.UNARY, request("wait"), 5, f.UNARY, request("wait")]),
    "a descending id": f.pack([5, f.UNARY, request("wait"), 4, f.UNARY, request("wait")]),
    "a malformed request": f.pack([1, f.UNARY, ["t.t.echo"]]),
    "headers that are text": f.pack([1, f.UNARY, ["t.t.echo", None, "text", codecs.pack({"x": 1})]]),
    "headers beyond their limit": f.pack([1, f.UNARY, ["t.t.echo", None, bytes(f.HEADERS_LIMIT + 1), b""]]),
    "a payload that is text": f.pack([1, f.UNARY, ["t.t.echo", None, b"", "text"]]),
    "time that is text": f.pack([1, f.UNARY, ["t.t.echo", "soon", b"", codecs.pack({"x": 1})]]),
    "input for a unary call": f.pack([1, f.UNARY, request("wait"), 1, f.INPUT, [b""]]),
    "credit that is no number": f.pack([0, f.CREDIT, "much"]),
    "negative credit": f.pack([0, f.CREDIT, -5]),
}


@pytest.mark.parametrize("breach", BREACHES.values(), ids=BREACHES.keys())
def test_a_breach_ends_the_connection_and_nothing_else(breach, tmp_path):
    async def story():
        async with connected(tmp_path) as (served, peer, _):
            good = await Peer.to(served)
            await good.hear()
            peer.write(breach)
            with pytest.raises((EOFError, ConnectionResetError)):
                while True:
                    await peer.hear()
            good.say(1, f.UNARY, request("echo", x=3))
            assert await good.hear() == (1, f.ANSWER, codecs.pack(3))
            await good.close()
            await until(lambda: served.server.inflight == 0)

    asyncio.run(story())


GREETINGS = {
    "a wrong token": f.pack_hello(f.Hello(token="token 2")),
    "no token": f.pack_hello(f.Hello()),
    "a request first": f.pack([1, f.UNARY, ("t.t.echo", None, b"", b"\x80")]),
    "a version from the future": f.pack_hello(f.Hello(oldest=90, newest=99, token="token 1")),
    "a hello of another shape": f.pack([0, f.HELLO, ["token 1"]]),
    "more than a hello may hold": f.pack([0, f.HELLO, {"token": "x" * 5000}]),
    "a wrong token and a request in one frame": f.pack(
        [0, f.HELLO, {"token": "token 2"}, 1, f.UNARY, ("t.t.echo", None, b"", b"\x81\xa1x\x01")]
    ),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS.keys())
def test_who_does_not_greet_properly_is_not_let_in(greeting, tmp_path):
    async def story():
        async with connected(tmp_path) as (served, _, ran):
            before = len(served.server.connections)
            where = (await served.discovery.view()).instances()[0].addresses["rpc"][0]
            stranger = Peer(*await asyncio.open_unix_connection(where.removeprefix("unix:")))
            stranger.write(greeting + f.pack([1, f.UNARY, request("echo", x=1)]))
            with contextlib.suppress(EOFError, ConnectionResetError):
                while True:
                    _, kind, _ = await stranger.hear()
                    assert kind in (f.ERROR, f.HELLO)
            assert len(served.server.connections) == before
            assert not ran
            await stranger.close()

    asyncio.run(story())


def test_a_drain_is_over_when_no_call_can_be_on_its_way(tmp_path):
    """A call that crosses the GOAWAY is refused as never run; a connection closed before would leave its caller in doubt."""

    async def story():
        async with connected(tmp_path) as (served, peer, ran):
            draining = asyncio.ensure_future(served.server.drain(5))
            assert [(await peer.hear())[:2] for _ in range(2)] == [(0, f.GOAWAY), (0, f.PING)]
            peer.say(1, f.UNARY, request("echo", x=1))
            ident, kind, body = await peer.hear()
            assert (ident, kind) == (1, f.ERROR)
            assert failures.read_failure(body).refused
            assert not draining.done()
            peer.say(0, f.PONG, None)
            assert await asyncio.wait_for(draining, 0.4)
            assert not ran

    asyncio.run(story())


def test_late_messages_for_ended_calls_are_dropped(tmp_path):
    async def story():
        async with connected(tmp_path) as (_, peer, _):
            peer.say(1, f.UNARY, request("echo", x=1))
            await peer.hear()
            peer.say(1, f.CANCEL, None, 1, f.STOP, None, 1, f.CREDIT, 5, 1, f.INPUT, [b"x"], 1, f.INPUT_END, None)
            peer.say(2, f.UNARY, request("echo", x=2))
            assert await peer.hear() == (2, f.ANSWER, codecs.pack(2))

    asyncio.run(story())


def test_headers_that_are_no_text_fail_the_call_that_looks_at_them(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("look"))
            async def look(call: Call) -> Any:
                return call.metadata

            await served.start()
            peer = await Peer.to(served)
            await peer.hear()
            peer.say(1, f.UNARY, ("t.t.look", None, msgspec.msgpack.encode({"a": 1}), codecs.pack({})))
            assert failures.read_failure((await peer.hear())[2]).code == "invalid_argument"
            await peer.close()

    asyncio.run(story())


def test_a_caller_that_never_reads_its_answers_is_read_no_further(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            ran = 0

            @served.handler(unary("blob", bytes))
            async def blob(call: Call) -> Any:
                nonlocal ran
                ran += 1
                return bytes(1_000_000)

            await served.start()
            peer = await Peer.to(served)
            await peer.hear()
            for n in range(1, 101):
                peer.say(n, f.UNARY, request("blob"))
                await asyncio.sleep(0.001)
            (connection,) = served.server.connections
            await until(lambda: connection.deaf)
            assert ran < 100
            assert {(await peer.hear())[0] for _ in range(100)} == set(range(1, 101))
            assert not connection.deaf
            await peer.close()

    asyncio.run(story())

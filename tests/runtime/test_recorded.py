"""The conversation recorded from the first wire version, replayed: its caller to our server, its callee to our client.

The kinds are written as the numbers they had then: a constant that changes its value must not change what is spoken.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from bema.core.call import Call
from bema.core.errors import NotFound, StreamCut
from bema.core.instance import EndpointInfo, Instance
from bema.core.spec import EndpointSpec, Shape
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.rpc.client import Client
from bema.runtime.rpc.pool import ConnectionPool
from bema.runtime.rpc.server import Server
from bema.wire.rpc import frames as f
from bema.wire.rpc.reader import BatchReader
from bema.wire.values import codecs
from tests.wire.feeding import fed, open_reader

pytestmark = pytest.mark.usefixtures("each_loop")

RECORDED = Path(__file__).parents[1] / "data" / "rpc"
UNARY, STREAM, COLLECT, BOTH, ANSWER, ITEM, END, PONG = 1, 2, 3, 4, 10, 11, 12, 15


def lines(side: str) -> list[bytes]:
    return [bytes.fromhex(line) for line in (RECORDED / f"v1-{side}.hex").read_text().splitlines()]


def heard(reader: BatchReader, data: bytes) -> list[tuple[Any, Any, Any]]:
    return list(f.messages(fed(reader, data)))


async def hung_up(writing: asyncio.StreamWriter) -> None:
    writing.close()
    with contextlib.suppress(OSError):
        await writing.wait_closed()


def first_server() -> Server:
    """What the recorded caller spoke to."""
    server = Server("b5c1f0", name="worker")

    async def echo(call: Call) -> Any:
        given = call.arguments["given"]
        return given["request"] if isinstance(given, dict) else given

    async def generate(call: Call) -> Any:
        for letter in "abc":
            yield letter
        while not call.is_stopped():
            await asyncio.sleep(0)

    async def total(call: Call) -> Any:
        assert call.requests is not None
        return sum([number async for number in call.requests])

    async def double(call: Call) -> Any:
        assert call.requests is not None
        async for number in call.requests:
            yield 2 * number

    for handler, shape in ((echo, UNARY), (generate, STREAM), (total, COLLECT), (double, BOTH)):
        route = f"demo.worker.{handler.__name__}"
        server.add(route, handler, EndpointSpec(handler.__name__, list(Shape)[shape - 1]))
        server.routes[route].decode = lambda payload: {"given": codecs.unpack(payload)}  # recorded payloads are opaque
    return server


def test_the_recorded_caller_is_answered(tmp_path):
    async def story():
        server = first_server()
        where = await server.listen(f"unix:{tmp_path}/first.sock")
        reading, writing = await asyncio.open_unix_connection(where.removeprefix("unix:"))
        reader = open_reader()
        greeting, *said = lines("caller")
        writing.write(greeting)
        got = heard(reader, await reading.read(65536))
        assert [message[:2] for message in got] == [(0, 0)]
        writing.write(b"".join(said))
        got = []
        async with asyncio.timeout(5):
            while not {(1, ANSWER), (2, END), (3, ANSWER), (4, ANSWER), (0, PONG)} <= {(i, k) for i, k, _ in got}:
                got += heard(reader, await reading.read(65536))
        bodies = {(ident, kind): body for ident, kind, body in got if kind != ITEM}
        assert codecs.unpack(bodies[1, ANSWER]) == {"text": "hi", "n": 1}
        assert codecs.unpack(bodies[3, ANSWER]) == "x" * 300
        assert codecs.unpack(bodies[4, ANSWER]) == 1 + 2
        assert bodies[2, END] is True, "it was stopped"
        items = [codecs.unpack(item) for ident, kind, body in got if (ident, kind) == (2, ITEM) for item in body]
        assert items == ["a", "b", "c"]
        assert (5, END) not in bodies, "who gave a call up is told nothing of it"
        await hung_up(writing)
        await server.close()

    asyncio.run(story())


async def numbers(*values: int) -> Any:
    for value in values:
        yield value


async def collected(stream: Any, into: list[Any]) -> None:
    async for item in stream:
        into.append(item)


def test_the_recorded_callee_is_understood(tmp_path):
    async def story():
        asked: list[tuple[int, int]] = []
        writers: list[asyncio.StreamWriter] = []
        greeting, *said = lines("callee")

        async def callee(reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
            writers.append(writing)
            writing.write(greeting)
            reader = open_reader()
            while len(asked) < 7:
                messages = heard(reader, await reading.read(65536))
                asked.extend((ident, kind) for ident, kind, _ in messages if kind in (UNARY, STREAM, COLLECT, BOTH))
            writing.write(b"".join(said))

        path = tmp_path / "first.sock"
        server = await asyncio.start_unix_server(callee, path)
        discovery, pool = MemoryDiscovery(), ConnectionPool()
        names = ("echo", "generate", "total", "double")
        instance = Instance(
            id=1,
            namespace="demo",
            component="worker",
            endpoints=tuple(map(EndpointInfo, names)),
            addresses={"rpc": (f"unix:{path}",)},
        )
        await discovery.register(instance)
        view = await discovery.view("demo", "worker")
        echo, generate, total, double = (Client(pool, view, f"demo.worker.{name}") for name in names)
        connection = await pool.connect(instance)
        letters: list[Any] = []
        doubled: list[Any] = []
        none: list[Any] = []
        calls = [
            echo.unary({}),
            collected(generate.stream({}), letters),
            echo.unary({}),
            total.unary({}, requests=numbers(1, 2)),
            collected(double.stream({}, requests=numbers(1)), doubled),
            collected(generate.stream({}), none),
            echo.unary({}),
        ]
        tasks = [asyncio.ensure_future(call) for call in calls]
        both = tasks.pop(4)  # the recording does not end it
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            while not doubled:
                await asyncio.sleep(0)
        assert asked == [(1, UNARY), (2, STREAM), (3, UNARY), (4, COLLECT), (5, BOTH), (6, STREAM), (7, UNARY)]
        assert outcomes[:1] + outcomes[2:5] == [{"text": "hi", "n": 1}, "x" * 300, 3, None]
        assert isinstance(outcomes[1], StreamCut) and letters == ["a", "b", "c"]
        assert isinstance(outcomes[5], NotFound) and none == []
        assert doubled == [2]
        assert connection.going, "it said that it takes no new calls"
        both.cancel()
        await asyncio.wait([both])
        await pool.close()
        await hung_up(writers[0])
        server.close()
        await server.wait_closed()

    asyncio.run(story())

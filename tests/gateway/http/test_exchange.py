"""However an exchange ends, it is counted out exactly once: what reclaims idle instances rests on it.

The connections, the exchange and the pool are the shipped ones; only what carries the bytes is in memory, so that a client
may go, an instance may die and a deadline may pass between any two bytes.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bema.core.errors import NotFound
from bema.core.instance import Instance
from bema.gateway.http.answers import answer
from bema.gateway.http.exchange import Exchange
from bema.gateway.http.listener import DataListener
from bema.gateway.http.upstream import Upstream
from bema.gateway.routing.activity import Activity
from bema.gateway.routing.choice import InstanceRoute
from bema.gateway.routing.table import RoutingTable
from bema.runtime.discovery.memory import MemoryDiscovery
from tests.gateway.gate import OK, gate, read_request, request, unknown, until

ID = "0b9a7a3c-1111-4222-8333-123456789abc"
PATH = f"/gateway/{ID}"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

REQUESTS = {
    "get": request(PATH),
    "head": request(PATH, method="HEAD"),
    "two": request(PATH) + request(PATH),
    "post": request(PATH, method="POST", body=b"hello"),
    "chunked": request(PATH, "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n0\r\n\r\n",
    "continue": request(PATH, "Expect: 100-continue", method="POST", body=b"hello"),
    "upgrade": request(PATH, "Connection: upgrade", "Upgrade: websocket") + b"frames",
    "http/1.0": f"GET {PATH} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode(),
    "no deployment": request("/gateway/nobody"),
    "no request": b"GET\r\n\r\n",
}
ANSWERS = {
    "sized": OK,
    "empty": b"HTTP/1.1 204 No Content\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n",
    "until it closes": b"HTTP/1.1 200 OK\r\n\r\nok",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "switched": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nframes",
    "too much": OK + OK,
    "closes": b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
    "no answer": b"SSH-2.0-x\r\n\r\n",
}
DEATH = ConnectionResetError("killed")


class Wire:
    """What carries bytes to and from one end, until either side has closed it."""

    def __init__(self, end: Any) -> None:
        self.end = end
        self.closing = False
        end.connection_made(self)

    def write(self, data: bytes) -> None:
        pass

    def write_eof(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1)

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.end.connection_lost, None)

    abort = close

    # the other side

    def arrives(self, data: bytes) -> None:
        if data and not self.closing:
            self.end.data_received(data)

    def goes(self, error: Exception | None = None) -> None:
        if not self.closing:
            self.closing = True
            self.end.connection_lost(error)


class Counted:
    """Every entry and exit of every activity."""

    def __init__(self) -> None:
        self.begun = self.ended = self.told = 0

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        def begin(activity: Activity) -> None:
            self.begun += 1
            activity.in_flight += 1

        def answered(activity: Activity, status: int, seconds: float) -> None:
            self.told += 1

        def end(activity: Activity) -> None:
            self.ended += 1
            activity.in_flight -= 1
            assert activity.in_flight >= 0, "it was counted out twice"

        patch.setattr(Activity, "begin", begin)
        patch.setattr(Activity, "answered", answered)
        patch.setattr(Activity, "end", end)


class Scene:
    """One client's connection, and whatever instance the gateway dials."""

    def __init__(self, asks: bytes, answers: bytes, reached: str) -> None:
        self.asks, self.answers, self.reached = asks, answers, reached
        self.instances: list[Wire] = []
        self.sent = 0
        self.door = asyncio.Event()

    async def open(self) -> None:
        discovery = MemoryDiscovery()
        if self.reached != "unknown":
            protocol = "rpc" if self.reached.startswith("door") else "http"
            discovery.put(Instance(id=1, namespace="t", component="t", deployment=ID, addresses={protocol: ("x",)}))
        table = RoutingTable(await discovery.view())
        self.listener = DataListener(table, unknown, self.serve)
        self.listener.dispatcher.pool.dial = self.dial  # type: ignore[method-assign]
        self.connection = self.listener.accept()
        self.client = Wire(self.connection)

    async def dial(self, address: str) -> Upstream:
        await asyncio.sleep(0)
        if self.reached == "not there":
            raise OSError("nobody listens")
        made = Upstream(self.listener.dispatcher.pool, address)
        self.instances.append(Wire(made))
        return made

    async def serve(self, exchange: Exchange, route: InstanceRoute) -> None:
        await exchange.whole_body()
        await self.door.wait()
        if self.reached == "door that refuses":
            raise NotFound("no such endpoint")
        if self.reached == "door that fails":
            raise ZeroDivisionError
        exchange.begin_answer(answer(200, [], b"ok", exchange.trace_id, close=not exchange.keeps()), 200)
        if self.reached == "door that fails late":
            raise ZeroDivisionError
        await exchange.room()
        exchange.finish()

    def client_sends(self, count: int) -> None:
        data, self.asks = self.asks[:count], self.asks[count:]
        self.client.arrives(data)

    def instance_sends(self, count: int) -> None:
        if self.instances:
            self.instances[-1].arrives(self.answers[self.sent : self.sent + count])
            self.sent += count

    def instance_ends(self, error: Exception | None) -> None:
        if self.instances:
            self.instances[-1].goes(error)
            self.sent = 0

    def late(self) -> None:
        if not self.client.closing:
            self.connection.expire()

    def drains(self) -> None:
        self.listener.dispatcher.draining = True
        if not self.client.closing:
            self.connection.stop()

    async def close(self) -> None:
        self.client.goes()
        self.door.set()
        for _ in range(5):
            await asyncio.sleep(0)
        await self.listener.drain(0)
        assert all(wire.closing for wire in self.instances), "an instance works on for nobody"


STEPS = st.one_of(
    st.tuples(st.just("client_sends"), st.integers(1, 200)),
    st.tuples(st.just("instance_sends"), st.integers(1, 120)),
    st.tuples(st.just("instance_ends"), st.sampled_from([None, DEATH])),
    st.sampled_from([("turn",), ("turn",), ("late",), ("drains",), ("client_goes",), ("door",), ("full",), ("room",)]),
)
REACHED = ["there", "not there", "unknown", "door", "door that refuses", "door that fails", "door that fails late"]


async def play(scene: Scene, steps: list[Any]) -> None:
    await scene.open()
    for name, *given_ in steps:
        match name:
            case "turn":
                for _ in range(4):
                    await asyncio.sleep(0)
            case "client_goes":
                scene.client.goes(DEATH)
            case "door":
                scene.door.set()
            case "full":
                scene.connection.pause_writing()
            case "room":
                scene.connection.resume_writing()
            case _:
                getattr(scene, name)(*given_)
    await scene.close()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    found = Counted()
    found.watch(monkeypatch)
    yield found
    assert found.begun, "no example came as far as an instance"


def test_however_an_exchange_ends_it_is_counted_out_exactly_once(counted: Counted, caplog: pytest.LogCaptureFixture):
    @settings(max_examples=400, deadline=None)
    @given(
        st.sampled_from(sorted(REQUESTS)),
        st.sampled_from(sorted(ANSWERS)),
        st.sampled_from(REACHED),
        st.lists(STEPS, max_size=14),
    )
    def holds(asks: str, answers: str, reached: str, steps: list[Any]) -> None:
        before = counted.begun, counted.ended, counted.told
        asyncio.run(play(Scene(REQUESTS[asks], ANSWERS[answers], reached), [("client_sends", 200), ("turn",), *steps]))
        begun, ended, told = (now - then for now, then in zip(vars(counted).values(), before, strict=True))
        assert begun == ended, "an exchange was not counted out"
        assert told == begun, "an exchange was answered more or less than once"
        caplog.clear()

    holds()


@pytest.mark.parametrize("answers", ANSWERS)
@pytest.mark.parametrize("error", [None, DEATH], ids=["ends", "is killed"])
def test_an_instance_that_dies_at_any_byte_of_its_answer_leaves_nothing_in_flight(counted, answers, error):
    async def story():
        for count in range(len(ANSWERS[answers]) + 1):
            steps = [("client_sends", 200), ("turn",), ("instance_sends", count), ("instance_ends", error), ("turn",)]
            scene = Scene(REQUESTS["get"], ANSWERS[answers], "there")
            await play(scene, steps)
            assert counted.begun == counted.ended, f"after {count} bytes"

    asyncio.run(story())


@pytest.mark.parametrize("asks", sorted(set(REQUESTS) - {"no deployment", "no request"}))
def test_a_client_that_goes_at_any_byte_of_its_request_leaves_nothing_in_flight(counted, asks):
    async def story():
        for count in range(len(REQUESTS[asks]) + 1):
            scene = Scene(REQUESTS[asks], OK, "there")
            await play(scene, [("client_sends", count), ("turn",), ("client_goes",), ("turn",)])
            assert counted.begun == counted.ended, f"after {count} bytes"

    asyncio.run(story())


@pytest.mark.parametrize("answers", ANSWERS)
def test_a_client_that_goes_at_any_byte_of_the_answer_leaves_nothing_in_flight(counted, answers):
    async def story():
        for count in range(len(ANSWERS[answers]) + 1):
            scene = Scene(REQUESTS["upgrade"], ANSWERS[answers], "there")
            await play(
                scene, [("client_sends", 200), ("turn",), ("instance_sends", count), ("client_goes",), ("turn",)]
            )
            assert counted.begun == counted.ended, f"after {count} bytes"

    asyncio.run(story())


@pytest.mark.usefixtures("every_loop")
def test_an_instance_that_dies_in_the_middle_of_its_answer_is_counted_out_while_the_client_is_still_there():
    """On real sockets: the client keeps its connection open, and the count falls all the same."""

    async def instance(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    async def story():
        async with gate() as g:
            path = await g.serve(instance, str(uuid.uuid4()))
            async with await g.client() as client:
                client.send(request(path))
                await client.head()
                [activity] = g.listener.activities.all()
                await until(lambda: activity.upstream_failures == 1)
                assert activity.in_flight == 0

    asyncio.run(asyncio.wait_for(story(), 30))

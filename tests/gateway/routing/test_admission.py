"""Waiting for a place: at most as many requests as an instance takes, in order of arrival."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from bema.core.errors import NotFound, Overloaded
from bema.core.instance import Instance, Terms
from bema.core.limits import DEFAULTS
from bema.deploy.model.deployment import Activation
from bema.gateway.http.forwarding import start_timing
from bema.gateway.routing.admission import RequestAdmission
from bema.gateway.routing.choice import VERSION, InstanceRoute, Seat
from bema.gateway.routing.table import RoutingTable
from bema.runtime.discovery.memory import MemoryDiscovery
from tests.gateway.gate import gate, read_request, request, says_ok, until


class Request:
    def __init__(self, version: bytes = b"") -> None:
        self.ours = {VERSION: version} if version else {}

    def header(self, name: bytes) -> bytes | None:
        return None


async def nobody(deployment: str) -> InstanceRoute:
    raise NotFound("no deployment")


class Scene:
    """One deployment `d` with an instance that takes two requests at a time."""

    def __init__(self) -> None:
        self.discovery = MemoryDiscovery()

    async def open(self, **limits: float) -> RequestAdmission:
        self.table = RoutingTable(await self.discovery.view())
        self.admission = RequestAdmission(self.table, nobody, DEFAULTS.but(**limits))
        return self.admission

    def show(self, id: int = 1, concurrency: int = 2, version: str = "v1", **fields: object) -> None:
        addresses: dict[str, tuple[str, ...]] = {"http": (f"unix:{id}",)}
        record = Instance(id=id, namespace="t", component="t", deployment="d", version=version, addresses=addresses)
        self.discovery.put(msgspec.structs.replace(record, terms=Terms(concurrency=concurrency), **fields))

    def taken(self, asked: Request | None = None) -> Seat:
        place = self.admission.take("d", asked or Request())
        assert place is not None
        return place


def test_a_place_that_is_given_up_goes_to_who_waits_longest():
    async def story() -> None:
        scene, given = Scene(), list[int]()
        scene.show()
        admission = await scene.open()
        held = [scene.taken(), scene.taken()]
        assert admission.take("d", Request()) is None

        async def one(number: int) -> None:
            place = await admission.wait("d", Request())
            given.append(number)
            assert place.in_flight <= 2
            await asyncio.sleep(0)
            admission.release(place)

        waiting = [asyncio.create_task(one(number)) for number in range(20)]
        await until(lambda: admission.waiting("d") == 20)
        # a place is free, and who comes now is not served before those who wait
        held[0].in_flight -= 1
        assert admission.take("d", Request()) is None
        held[0].in_flight += 1
        for place in held:
            admission.release(place)
        await asyncio.gather(*waiting)
        assert given == list(range(20))
        assert (admission.lines(), held[0].in_flight) == ({}, 0)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_another_instance_serves_those_who_wait():
    async def story() -> None:
        scene = Scene()
        scene.show()
        admission = await scene.open()
        held = [scene.taken(), scene.taken()]
        waiting = [asyncio.create_task(admission.wait("d", Request())) for _ in range(3)]
        await until(lambda: admission.waiting("d") == 3)
        scene.show(2)
        first, second = await waiting[0], await waiting[1]
        assert (first.instance.id, second.instance.id, waiting[2].done()) == (2, 2, False)
        admission.release(held[0])
        assert (await waiting[2]).instance.id == 1

    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.parametrize("turns", range(4))
def test_a_place_that_was_given_to_one_who_leaves_goes_to_the_next(turns: int):
    async def story() -> None:
        scene = Scene()
        scene.show(concurrency=1)
        admission = await scene.open()
        held = scene.taken()
        leaving, staying = (asyncio.create_task(admission.wait("d", Request())) for _ in range(2))
        await until(lambda: admission.waiting("d") == 2)
        admission.release(held)
        for _ in range(turns):
            await asyncio.sleep(0)
        leaving.cancel()
        [left] = await asyncio.gather(leaving, return_exceptions=True)
        if isinstance(left, Seat):  # it had it before it left
            admission.release(left)
        assert (await staying).in_flight == 1

    asyncio.run(asyncio.wait_for(story(), 60))


def test_the_line_is_bounded_and_a_wait_in_it_has_an_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bema.gateway.routing.admission._PATIENCE", 0.2)

    async def story() -> None:
        scene = Scene()
        scene.show(concurrency=1)
        admission = await scene.open(http_waiters=1, start=0.1)
        held = scene.taken()
        waiting = asyncio.create_task(admission.wait("d", Request()))
        await until(lambda: admission.waiting("d") == 1)
        with pytest.raises(Overloaded) as full:
            await admission.wait("d", Request())
        assert full.value.retry_after == 1
        with pytest.raises(Overloaded) as late:
            await waiting
        assert late.value.retry_after == 1
        assert (admission.lines(), held.in_flight) == ({}, 1)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_what_stands_in_the_way_is_told_to_all_who_wait_and_the_next_asks_anew():
    async def story() -> None:
        admission = await Scene().open()
        for _ in range(2):
            waiting = [admission.wait("d", Request()) for _ in range(3)]
            told = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(each) for each in told] == [NotFound] * 3
            assert admission.lines() == {}

    asyncio.run(asyncio.wait_for(story(), 60))


def test_who_names_a_version_that_does_not_run_is_told_so_at_once():
    async def story() -> None:
        scene = Scene()
        scene.show()
        scene.show(2, version="v2", share=0)
        admission = await scene.open()
        assert scene.taken(Request(b"v2")).instance.id == 2
        with pytest.raises(NotFound, match="v3"):
            await admission.wait("d", Request(b"v3"))

    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.usefixtures("every_loop")
def test_an_instance_is_never_sent_more_than_it_takes_and_all_are_answered():
    """On real sockets: forty clients at once, at two instances that take three requests each."""
    most, now = [0, 0], [0, 0]

    def instance(number: int):
        async def handler(reader, writer):
            while True:
                await read_request(reader)
                now[number] += 1
                most[number] = max(most[number], now[number])
                await asyncio.sleep(0.01)
                now[number] -= 1
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

        return handler

    async def story() -> None:
        async with gate() as g:
            path = await g.serve(instance(0))
            deployment = path.rpartition("/")[2]
            await g.serve(instance(1), deployment)
            for record in g.listener.table.instances_of(deployment).instances():
                g.discovery.put(msgspec.structs.replace(record, terms=Terms(concurrency=3)))
            answers = await asyncio.gather(*(g.ask(request(f"{path}/{n}")) for n in range(40)))
            assert {answer.body for answer in answers} == {b"ok"}
            assert most == [3, 3]
            assert g.listener.dispatcher.admission.lines() == {}
            [activity] = g.listener.activities.all()
            await until(lambda: activity.in_flight == 0)

    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.parametrize("begun", [False, True], ids=["before its answer", "in the middle of it"])
def test_a_request_that_takes_longer_than_it_may_is_ended_and_gives_its_place_up(begun: bool):
    left = asyncio.Event()

    async def instance(reader, writer):
        await read_request(reader)
        if begun:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        await reader.read()
        left.set()

    async def story() -> None:
        async with gate() as g:
            path = await g.serve(instance)
            [shown] = g.listener.table.instances_of(path.rpartition("/")[2]).instances()
            g.discovery.put(msgspec.structs.replace(shown, terms=Terms(concurrency=1, timeout=0.2)))
            async with await g.client() as client:
                client.send(request(path))
                if begun:
                    assert b" 200 " in await client.head()
                    assert await client.closed(within=30)
                else:
                    answer = await client.answer()
                    assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")
            await left.wait()
            [activity] = g.listener.activities.all()
            await until(lambda: activity.in_flight == 0)
            assert g.listener.table.free(shown.deployment)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_who_waited_for_a_start_is_told_how_long_it_took_and_nobody_else_is():
    async def activate(deployment: str, wait: float) -> Activation:
        return Activation("starting")

    async def story() -> None:
        async with gate(activate) as g:
            path = await g.serve(says_ok)
            [shown] = g.listener.table.instances_of(path.rpartition("/")[2]).instances()
            data = {"start": {"kind": "zygote"}, "phases": {"import": 8, "startup": 25, "evil": "1\r\nx: y"}}
            g.discovery.put(msgspec.structs.replace(shown, ready=False))
            waiting = asyncio.create_task(g.get(path))
            await until(lambda: g.listener.dispatcher.admission.lines())
            g.discovery.put(msgspec.structs.replace(shown, data=data))
            answer = await waiting
            assert answer.headers["server-timing"] == 'bema-start;desc="zygote";dur=33'
            assert "server-timing" not in (await g.get(path)).headers

    asyncio.run(asyncio.wait_for(story(), 60))


def test_an_instance_cannot_write_headers_by_its_record():
    record = Instance(id=1, namespace="t", component="t", data={"start": {"kind": 'x"\r\ny: z'}, "phases": {"a": 3}})
    assert start_timing(record) == (b"server-timing", b'bema-start;desc="exec";dur=3')

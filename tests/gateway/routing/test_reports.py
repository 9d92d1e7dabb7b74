"""What a gateway tells the orchestrator: what changed, soon, and at once when somebody begins to wait."""

from __future__ import annotations

import asyncio

import msgspec

from bema.core.clock import Clock
from bema.core.errors import NotFound, Unavailable
from bema.core.instance import Instance, State, Terms
from bema.core.limits import DEFAULTS
from bema.deploy.model.restarts import SECOND
from bema.deploy.model.scaling import Load, Loads
from bema.gateway.routing import reports
from bema.gateway.routing.activity import Activities
from bema.gateway.routing.admission import RequestAdmission
from bema.gateway.routing.choice import InstanceRoute, Seat
from bema.gateway.routing.reports import LoadReports
from bema.gateway.routing.table import RoutingTable
from bema.runtime.discovery.memory import MemoryDiscovery
from tests.gateway.gate import until


class HandClock(Clock):
    def __init__(self) -> None:
        self.at = 1_000 * SECOND

    def now(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return self.at / SECOND


class Request:
    def __init__(self) -> None:
        self.ours: dict[bytes, bytes] = {}

    def header(self, name: bytes) -> bytes | None:
        return None


async def nobody(deployment: str) -> InstanceRoute:
    raise NotFound("no deployment")


class Scene:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.discovery = MemoryDiscovery()
        self.told: list[Loads] = []
        self.away = False

    async def open(self) -> LoadReports:
        self.table = RoutingTable(await self.discovery.view())
        self.activities = Activities(self.clock)
        self.admission = RequestAdmission(self.table, nobody, DEFAULTS)
        self.reports = LoadReports(7, self.table, self.activities, self.admission, self.tell, self.clock)
        return self.reports

    async def tell(self, report: Loads) -> None:
        if self.away:
            raise Unavailable("the orchestrator is away")
        self.told.append(report)

    def show(self, **fields: object) -> None:
        record = Instance(id=1, namespace="t", component="t", deployment="d", addresses={"http": ("unix:1",)})
        self.discovery.put(msgspec.structs.replace(record, terms=Terms(concurrency=1), **fields))

    def take(self) -> Seat:
        seat = self.admission.take("d", Request())
        assert seat is not None
        self.activities.of("d").begin()
        return seat

    def give_up(self, seat: Seat) -> None:
        self.activities.of("d").end()
        self.admission.release(seat)


def test_what_changed_is_told_once_with_the_time_that_was_spent():
    async def story() -> None:
        scene = Scene()
        tells = await scene.open()
        scene.show()
        seat = scene.take()
        assert tells.report() == Loads(gateway=7, loads=(Load(deployment="d", in_flight=1),))
        assert tells.report() == Loads(gateway=7)
        scene.clock.at += 3 * SECOND
        scene.give_up(seat)
        ended = scene.clock.at
        assert tells.report().loads == (Load(deployment="d", busy=3 * SECOND, last_use=ended),)
        # one that came and went between two reports
        seat = scene.take()
        scene.clock.at += SECOND
        scene.give_up(seat)
        assert tells.report().loads == (Load(deployment="d", busy=SECOND, last_use=scene.clock.at),)
        tells.again()
        assert tells.report().loads == (Load(deployment="d", last_use=scene.clock.at),)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_draining_instance_is_told_of_when_nothing_is_in_flight_there():
    async def story() -> None:
        scene = Scene()
        tells = await scene.open()
        scene.show()
        seat = scene.take()
        scene.show(state=State.DRAINING)
        assert tells.report().drained == ()
        scene.give_up(seat)
        assert tells.report().drained == (1,)
        assert tells.report().drained == ()
        tells.again()
        assert tells.report().drained == (1,)
        scene.discovery.drop(1)
        tells.again()
        assert tells.report().drained == ()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_who_begins_to_wait_is_told_of_before_the_period_is_over(monkeypatch):
    monkeypatch.setattr(reports, "_PERIOD", 3600.0)

    async def story() -> None:
        scene = Scene()
        running = asyncio.create_task((await scene.open()).run())
        scene.show()
        seat = scene.take()
        await until(lambda: len(scene.told) == 1, 30)
        waiting = asyncio.create_task(scene.admission.wait("d", Request()))
        await until(lambda: len(scene.told) == 2, 30)
        assert scene.told[1].loads == (Load(deployment="d", in_flight=1, waiting=1),)
        scene.give_up(seat)
        await waiting
        running.cancel()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_what_could_not_be_told_is_told_again(monkeypatch):
    monkeypatch.setattr(reports, "_AGAIN", 0.01)
    monkeypatch.setattr(reports, "_PERIOD", 0.01)

    async def story() -> None:
        scene = Scene()
        scene.away = True
        tells = await scene.open()
        running = asyncio.create_task(tells.run())
        scene.show()
        scene.take()
        await asyncio.sleep(0.05)
        assert scene.told == []
        scene.away = False
        await until(lambda: scene.told, 30)
        assert scene.told[0].loads[0].in_flight == 1
        running.cancel()

    asyncio.run(asyncio.wait_for(story(), 60))

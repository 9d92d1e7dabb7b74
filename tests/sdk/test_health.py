"""Readiness and liveness: really asked, and what follows from the answers."""

import asyncio
import logging
from typing import Any

import pytest

import bema
from bema import (
    DistributedRuntime,
    MemoryDiscovery,
    Unavailable,
    endpoint,
    liveness,
    on_shutdown,
    readiness,
    serve,
    service,
)
from bema.core.errors import Failed
from bema.runtime.discovery.discovery import wait_for

QUICK = {"health": 0.02, "health_answer": 0.1}


@service(name="patient", namespace="demo")
class Patient:
    well = True
    hangs = False
    alive = True
    closed = 0

    @endpoint()
    async def ask(self) -> str:
        return "fine"

    @readiness
    async def is_well(self) -> bool:
        if type(self).hangs:
            await asyncio.sleep(60)
        return type(self).well

    @liveness
    def is_alive(self) -> bool:
        if type(self).alive is None:
            raise LookupError("no pulse")
        return type(self).alive

    @on_shutdown
    def close(self) -> None:
        type(self).closed += 1


class Fresh:
    """A patient of this test's own, served in this process."""

    def __init__(self) -> None:
        self.cls: Any = service(name="patient", namespace="demo")(type("Fresh", (Patient,), {}))
        self.discovery = MemoryDiscovery()
        self.serving = DistributedRuntime(self.discovery, limits=QUICK)
        self.calling = DistributedRuntime(self.discovery)

    async def __aenter__(self) -> "Fresh":
        self.running = asyncio.create_task(serve(self.cls, self.serving))
        self.view = await self.calling.view("demo", "patient")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.serving.stop()
        await asyncio.wait({self.running})
        await self.serving.close()
        await self.calling.close()

    async def until_routable(self, whether: bool) -> None:
        async with asyncio.timeout(5):
            await wait_for(self.view, lambda seen: [i.routable() for i in seen] == [whether])


@pytest.mark.parametrize("how", ["no", "hangs"])
def test_what_is_not_ready_gets_nobody_new_until_it_is_ready_again(how):
    async def story():
        async with Fresh() as fresh:
            await fresh.until_routable(True)
            asks = fresh.calling.client(fresh.cls)
            assert await asks.ask() == "fine"
            fresh.cls.well, fresh.cls.hangs = how != "no", how == "hangs"
            await fresh.until_routable(False)
            assert fresh.view.instances()[0].state == "serving"
            with pytest.raises(Unavailable):
                await asks.ask()
            fresh.cls.well, fresh.cls.hangs = True, False
            await fresh.until_routable(True)
            assert await asks.ask() == "fine"

    asyncio.run(story())


@pytest.mark.parametrize("answer", [False, None], ids=["says no", "fails"])
def test_what_is_not_alive_ends_with_its_hooks_run(answer, caplog):
    async def story():
        async with Fresh() as fresh:
            await fresh.until_routable(True)
            fresh.cls.alive = answer
            with pytest.raises(Failed, match=r"is not alive \(is_alive\)"):
                await asyncio.wait_for(fresh.running, 5)
            assert fresh.cls.closed == 1

    with caplog.at_level(logging.WARNING, "bema.health"):
        asyncio.run(story())
    # beside load others may have something to say, too
    assert [record.message for record in caplog.records if record.name == "bema.health"] == (
        [] if answer is False else ["Fresh.is_alive failed: LookupError('no pulse')"]
    )


def test_one_no_is_no_death():
    async def story():
        async with Fresh() as fresh:
            await fresh.until_routable(True)
            fresh.cls.alive = False
            await asyncio.sleep(0.02)
            fresh.cls.alive = True
            await asyncio.sleep(0.2)
            assert not fresh.running.done()

    asyncio.run(story())


@pytest.mark.parametrize("raised", [SystemExit(3), GeneratorExit(), asyncio.CancelledError(), StopIteration(1)])
def test_whatever_a_hook_raises_it_has_said_no_and_the_process_goes_on(raised):
    class Own(Patient):
        @readiness
        async def is_well(self) -> bool:
            if Own.well:
                return True
            raise raised

    async def story():
        fresh = Fresh()
        fresh.cls = service(name="patient", namespace="demo")(Own)
        async with DistributedRuntime(fresh.discovery, limits=QUICK) as runtime:
            running = asyncio.create_task(serve(Own, runtime))
            view = await runtime.view("demo", "patient")
            async with asyncio.timeout(5):
                await wait_for(view, lambda seen: bool(seen) and seen[0].ready)
                Own.well = False
                await wait_for(view, lambda seen: not seen[0].ready)
                Own.well = True
                await wait_for(view, lambda seen: seen[0].ready)
            runtime.stop()
            await running

    asyncio.run(story())


def test_two_services_of_one_runtime_are_asked_apart():
    @service(name="neighbour", namespace="demo")
    class Neighbour:
        @endpoint()
        async def ask(self) -> str:
            return "fine"

        @readiness
        def always(self) -> bool:
            return True

        @liveness
        def lives(self) -> bool:
            return True

    async def story():
        async with Fresh() as fresh:
            beside = asyncio.create_task(serve(Neighbour, fresh.serving))
            both = await fresh.calling.discovery.view("demo")
            await wait_for(both, lambda seen: [i.routable() for i in seen] == [True, True])
            fresh.cls.well = False
            await fresh.until_routable(False)
            await asyncio.sleep(0.1)
            assert {i.component: i.routable() for i in both.instances()} == {"patient": False, "neighbour": True}
            fresh.cls.well = True
            await fresh.until_routable(True)
            fresh.serving.stop()
            await beside

    asyncio.run(story())


def test_a_program_may_say_so_itself():
    async def story():
        async with bema.DistributedRuntime(MemoryDiscovery()) as runtime:

            async def answer() -> int:
                return 1

            serving = asyncio.create_task(runtime.endpoint("demo.plain.answer").serve_endpoint(answer))
            view = await runtime.view("demo", "plain")
            await wait_for(view, lambda seen: [i.routable() for i in seen] == [True])
            await runtime.host.say_ready(False)
            assert [i.routable() for i in view.instances()] == [False]
            runtime.stop()
            await serving

    asyncio.run(story())

"""What gateways report reaches the plan: sleep, waking, and instances that are taken away once nobody sends to them."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

from bema.core.access import GATEWAY
from bema.core.instance import State
from bema.deploy.model.function import FunctionSettings
from bema.deploy.model.scaling import Load, Loads
from tests.deploy.platform import ADA, Platform, eventually, script, until

SLEEPY = FunctionSettings(idle_after=0.05)


def with_gateways(folder: Path, *gateways: int) -> Platform:
    platform = Platform(folder)
    platform.parts = dataclasses.replace(platform.parts, gateways=lambda: frozenset(gateways))
    return platform


def test_an_instance_is_stopped_once_every_gateway_sends_it_nothing_any_more(tmp_path: Path):
    async def story() -> None:
        platform = with_gateways(tmp_path, 1, 2)
        async with platform.orchestrator() as orchestrator:
            id = (await orchestrator.create(script(), ADA)).id
            await until(orchestrator, id, "ready")
            await orchestrator.configure(id, SLEEPY, ADA)
            [instance] = platform.launcher.instances
            await eventually(lambda: [r.state for r in orchestrator._reconciler.instances_of(id)] == [State.DRAINING])
            await orchestrator.loads(Loads(gateway=1, drained=(instance,)), GATEWAY)
            for _ in range(20):
                await asyncio.sleep(0)
            assert platform.launcher.stopped == []
            await orchestrator.loads(Loads(gateway=2, drained=(instance,)), GATEWAY)
            await eventually(lambda: [each[0] for each in platform.launcher.stopped] == [instance])
            await until(orchestrator, id, "idle")
            assert platform.store.rollouts()[id].status.attempts[-1].message == "idle"

    asyncio.run(story())


def test_who_asks_while_an_instance_is_taken_away_is_given_the_next(tmp_path: Path):
    async def story() -> None:
        platform = with_gateways(tmp_path, 1)
        async with platform.orchestrator() as orchestrator:
            id = (await orchestrator.create(script(), ADA)).id
            await until(orchestrator, id, "ready")
            await orchestrator.configure(id, SLEEPY, ADA)
            [first] = platform.launcher.instances
            await eventually(lambda: [r.state for r in orchestrator._reconciler.instances_of(id)] == [State.DRAINING])
            await orchestrator.configure(id, FunctionSettings(idle_after=60.0), ADA)
            told = await orchestrator.activate(id, 10.0, GATEWAY)
            assert told.state == "ready"
            assert len(platform.launcher.started) == 2
            assert platform.launcher.stopped == []
            await orchestrator.loads(Loads(gateway=1, drained=(first,)), GATEWAY)
            await eventually(lambda: [each[0] for each in platform.launcher.stopped] == [first])
            assert (await orchestrator.read(id, ADA)).state == "ready"

    asyncio.run(story())


def test_who_waits_is_given_as_many_as_are_needed_and_what_is_in_flight_is_not_idle(tmp_path: Path):
    async def story() -> None:
        platform = with_gateways(tmp_path, 1)
        async with platform.orchestrator() as orchestrator:
            id = (await orchestrator.create(script(), ADA)).id
            await until(orchestrator, id, "ready")
            await orchestrator.loads(Loads(gateway=1, loads=(Load(deployment=id, in_flight=10),)), GATEWAY)
            settings = FunctionSettings(idle_after=0.01, concurrency=10, max_instances=4)
            await orchestrator.configure(id, settings, ADA)
            waiting = Load(deployment=id, in_flight=10, waiting=25)
            await orchestrator.loads(Loads(gateway=1, loads=(waiting,)), GATEWAY)
            await eventually(lambda: len(platform.launcher.started) == 4)
            await asyncio.sleep(0.1)
            assert [r.state for r in orchestrator._reconciler.instances_of(id)] == [State.SERVING] * 4
            # the gateway is gone, and with it what it had
            orchestrator._reconciler.loads.are(())
            await eventually(lambda: all(r.state is State.DRAINING for r in orchestrator._reconciler.instances_of(id)))

    asyncio.run(story())


def test_what_fell_asleep_is_not_started_by_the_next_orchestrator_and_what_was_stopped_with_the_platform_is(
    tmp_path: Path,
):
    async def story() -> None:
        platform = with_gateways(tmp_path)
        async with platform.orchestrator() as orchestrator:
            ids = [(await orchestrator.create(script(name), ADA)).id for name in ("sleeper", "other")]
            for id in ids:
                await until(orchestrator, id, "ready")
            await orchestrator.configure(ids[0], SLEEPY, ADA)
            await until(orchestrator, ids[0], "idle")
            other = next(r.instance for r in orchestrator._reconciler.instances_of(ids[1]))
            platform.launcher.end(other, code=0, cause="stopped")
            await until(orchestrator, ids[1], "idle")
        started = len(platform.launcher.started)
        async with platform.orchestrator() as orchestrator:
            await until(orchestrator, ids[1], "ready")
            assert (await orchestrator.read(ids[0], ADA)).state == "idle"
            assert [each.name for each in platform.launcher.started[started:]] == ["other"]
            assert (await orchestrator.activate(ids[0], 10.0, GATEWAY)).state == "ready"

    asyncio.run(story())

"""The loop that makes instances equal deployments: what one event costs, and what a lost one does."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bema.core.instance import State
from bema.deploy.launch.launcher import Launcher, MemoryLauncher, hangs
from bema.deploy.launch.launchers import Launchers
from bema.deploy.model import plan as plans
from bema.deploy.orchestrator import reconciler
from tests.deploy.platform import ADA, Platform, eventually, script, until


def test_an_event_costs_a_look_at_its_own_deployment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    looked: list[str] = []
    planned = plans.plan

    def plan(desired: Any, *rest: Any, **more: Any) -> Any:
        looked.extend(deployment.id for deployment in desired)
        return planned(desired, *rest, **more)

    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            made = [await orchestrator.create(script(f"s{number}"), ADA) for number in range(8)]
            for each in made:
                await until(orchestrator, each.id, "ready")
            deployments = platform.store.deployments
            await eventually(lambda: all(each.current for each in deployments().values()))
            # what they were looked at for last
            await eventually(lambda: not orchestrator._reconciler._touched)
            [found] = orchestrator._reconciler.instances_of(made[3].id)
            monkeypatch.setattr(plans, "plan", plan)
            platform.launcher.end(found.instance, signal=9)
            await eventually(lambda: len(platform.launcher.started) == 9)
            await until(orchestrator, made[3].id, "ready")
        assert set(looked) == {made[3].id}

    asyncio.run(story())


def test_an_end_that_was_never_told_is_found_by_the_next_look_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reconciler, "_ALL", 0.05)

    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            made = await orchestrator.create(script(), ADA)
            await until(orchestrator, made.id, "ready")
            [gone] = platform.launcher.instances
            del platform.launcher._replicas[gone]
            await eventually(lambda: len(platform.launcher.started) == 2)
            await until(orchestrator, made.id, "ready")
            assert platform.store.rollouts()[made.id].status.attempts[0].cause == "lost"

    asyncio.run(story())


def test_one_that_is_being_stopped_is_stopped_once(tmp_path: Path):
    class Slow(MemoryLauncher):
        async def stop(self, instance: int, grace: float, reason: str) -> None:
            self.stopped.append((instance, grace, reason))

    async def story() -> None:
        platform = Platform(tmp_path)
        platform.launcher = Slow()
        platform.parts = dataclasses.replace(platform.parts, launcher=platform.launcher)
        async with platform.orchestrator() as orchestrator:
            made = await orchestrator.create(script(), ADA)
            await until(orchestrator, made.id, "ready")
            await orchestrator.delete(made.id, ADA)
            await eventually(lambda: len(platform.launcher.stopped) == 1)
            for _ in range(3):
                orchestrator._reconciler.wake(made.id)
                await asyncio.sleep(0)
            platform.launcher.end(platform.launcher.instances[0], code=0, cause="stopped")
            await eventually(lambda: platform.launcher.forgotten == [made.id])
        assert len(platform.launcher.stopped) == 1

    asyncio.run(story())


def test_what_is_heard_before_a_start_returns_is_kept(tmp_path: Path):
    """The instance serves, and another ends, before their launcher has said that it started them."""

    class Late(MemoryLauncher):
        async def start(self, workload: Any, instance: int) -> Any:
            replica = await super().start(workload, instance)
            if workload.name == "ends":
                self.end(instance, code=3)
            for _ in range(10):
                await asyncio.sleep(0)
            return replica

    async def story() -> None:
        platform = Platform(tmp_path)
        platform.launcher = Late()
        platform.launcher.outcomes["ends"] = hangs
        platform.parts = dataclasses.replace(platform.parts, launcher=platform.launcher)
        async with platform.orchestrator() as orchestrator:
            serves, ends = [await orchestrator.create(script(name), ADA) for name in ("serves", "ends")]
            await until(orchestrator, serves.id, "ready")
            await until(orchestrator, ends.id, "start_failed")
            [found] = orchestrator._reconciler.instances_of(serves.id)
            assert found.state is State.SERVING
            assert orchestrator._reconciler.instances_of(ends.id) == []

    asyncio.run(story())


def test_each_version_is_started_by_the_launcher_that_it_names(tmp_path: Path):
    opened: dict[str, MemoryLauncher] = {}

    async def opener(name: str) -> Launcher:
        opened[name] = MemoryLauncher()
        return opened[name]

    async def story() -> None:
        platform = Platform(tmp_path)
        platform.parts = dataclasses.replace(platform.parts, launcher=Launchers(opener, "own"))
        async with platform.orchestrator() as orchestrator:
            plain = await orchestrator.create(script("plain"), ADA)
            await until(orchestrator, plain.id, "ready")
            other = await orchestrator.create(script("other"), ADA)
            deployment = platform.store.deployments()[other.id]
            version = msgspec.structs.replace(deployment.version, launcher="special")
            await platform.store.save(msgspec.structs.replace(deployment, versions=(version,)))
            await until(orchestrator, other.id, "ready")
        started = {name: [workload.name for workload in each.started] for name, each in opened.items()}
        assert started == {"own": ["plain"], "special": ["other"]}

    asyncio.run(story())

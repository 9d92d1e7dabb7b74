"""The twin keeps the Protocol's promises."""

import asyncio

import pytest

from bema.core.errors import Conflict
from bema.core.instance import State
from bema.deploy.launch.launcher import Announced, Exited, MemoryLauncher, Reported, crashes, hangs
from bema.runtime.discovery.memory import MemoryDiscovery
from tests.deploy.platform import workload


def test_a_start_announces_and_is_shown():
    async def story():
        discovery = MemoryDiscovery()
        view = await discovery.view()
        launcher = MemoryLauncher(discovery)
        replica = await launcher.start(workload(deployment="d1"), 1)
        assert replica.state is State.STARTING
        assert isinstance(await launcher.next_event(), Announced)
        assert [i.deployment for i in view.instances()] == ["d1"]
        assert [r.state for r in await launcher.poll()] == [State.SERVING]

        await launcher.stop(1, 5.0, "test")
        assert await launcher.next_event() == Exited(1, code=0, cause="stopped")
        assert view.instances() == ()
        assert await launcher.poll() == []

    asyncio.run(story())


def test_outcomes_are_scripted_by_name():
    async def story():
        launcher = MemoryLauncher()
        launcher.outcomes |= {"bad": crashes(3, "no table"), "slow": hangs}
        await launcher.start(workload("bad"), 1)
        await launcher.start(workload("slow"), 2)
        end = await launcher.next_event()
        assert isinstance(end, Exited)
        assert (end.code, end.cause, end.tail[0]["event"]) == (3, "exited", "no table")
        assert [r.name for r in await launcher.poll()] == ["slow"]

    asyncio.run(story())


def test_an_instance_is_started_once():
    async def story():
        launcher = MemoryLauncher()
        await launcher.start(workload(deployment="d1"), 1)
        with pytest.raises(Conflict):
            await launcher.start(workload(deployment="d1"), 1)

    asyncio.run(story())


def test_what_an_instance_reports_is_told_known_and_shown():
    async def story():
        discovery = MemoryDiscovery()
        view = await discovery.view()
        launcher = MemoryLauncher(discovery)
        await launcher.start(workload(deployment="d1"), 1)
        assert isinstance(await launcher.next_event(), Announced)
        launcher.report(1, ready=False, stalled=True)
        assert await launcher.next_event() == Reported(1, ready=False, stalled=True)
        assert [(r.ready, r.stalled) for r in await launcher.poll()] == [(False, True)]
        assert [(i.ready, i.stalled, i.routable()) for i in view.instances()] == [(False, True, False)]

    asyncio.run(story())

"""Several launchers as one: each workload at its own, each event in its turn."""

from __future__ import annotations

import asyncio

import pytest

from bema.core.errors import NotFound
from bema.deploy.launch.launcher import Announced, Exited, Launcher, MemoryLauncher, hangs
from bema.deploy.launch.launchers import Launchers
from bema.runtime.discovery.memory import MemoryDiscovery
from tests.deploy.platform import workload


class Several:
    """Launchers in memory by name, opened as they are asked for."""

    def __init__(self, *names: str) -> None:
        self.opened: dict[str, MemoryLauncher] = {}
        self.launchers = Launchers(self._open, "own", names)

    async def _open(self, name: str) -> Launcher:
        if name == "nowhere":
            raise NotFound("no such launcher")
        assert name not in self.opened
        self.opened[name] = MemoryLauncher()
        return self.opened[name]


def test_a_workload_goes_to_the_launcher_it_names_and_there_it_is_stopped():
    async def story() -> None:
        several = Several()
        await several.launchers.start(workload(), 1)
        await several.launchers.start(workload(launcher="other"), 2)
        assert {name: each.instances for name, each in several.opened.items()} == {"own": [1], "other": [2]}
        assert {replica.instance for replica in await several.launchers.poll()} == {1, 2}
        await several.launchers.stop(2, 1.0, "test")
        assert [each.stopped for each in several.opened.values()] == [[], [(2, 1.0, "test")]]
        await several.launchers.close()

    asyncio.run(story())


def test_what_the_versions_name_is_polled_from_the_beginning():
    async def story() -> None:
        several = Several("other", "")
        assert await several.launchers.poll() == []
        assert set(several.opened) == {"own", "other"}

    asyncio.run(story())


def test_who_waits_hears_a_launcher_that_is_opened_meanwhile():
    async def story() -> None:
        several = Several()
        waiting = asyncio.create_task(several.launchers.next_event())
        await asyncio.sleep(0)
        await several.launchers.start(workload(launcher="other"), 1)
        assert isinstance(await asyncio.wait_for(waiting, 5), Announced)
        await several.launchers.close()

    asyncio.run(story())


def test_a_launcher_is_asked_again_only_when_its_event_was_dealt_with():
    class Asked(MemoryLauncher):
        asked = 0

        async def next_event(self):
            self.asked += 1
            return await super().next_event()

    async def story() -> None:
        asked = Asked()

        async def opened(name: str) -> Launcher:
            return asked

        launchers = Launchers(opened, "own")
        await launchers.start(workload(), 1)
        await launchers.next_event()
        await asyncio.sleep(0)
        assert asked.asked == 1
        await launchers.stop(1, 0.0, "test")
        assert isinstance(await launchers.next_event(), Exited)
        assert asked.asked == 2
        await launchers.close()

    asyncio.run(story())


def test_what_cannot_be_opened_fails_its_start_and_nothing_else():
    async def story() -> None:
        several = Several()
        with pytest.raises(NotFound, match="no such launcher"):
            await several.launchers.start(workload(launcher="nowhere"), 1)
        await several.launchers.stop(1, 0.0, "nobody")
        await several.launchers.start(workload(), 2)
        assert isinstance(await several.launchers.next_event(), Announced)
        await several.launchers.close()

    asyncio.run(story())


def test_all_of_them_show_in_the_same_discovery():
    async def story() -> None:
        discovery = MemoryDiscovery()
        several = Several()
        several.launchers.meet(discovery)
        await several.launchers.start(workload(), 1)
        await several.launchers.start(workload(launcher="other"), 2)
        assert [i.id for i in (await discovery.view()).instances()] == [1, 2]
        await several.launchers.forget("d1")
        assert [each.forgotten for each in several.opened.values()] == [["d1"], ["d1"]]

    asyncio.run(story())


def test_a_start_that_takes_long_keeps_no_event_waiting():
    async def story() -> None:
        several = Several()
        await several.launchers.poll()
        several.opened["own"].outcomes["slow"] = hangs
        await several.launchers.start(workload("slow"), 1)
        await several.launchers.start(workload(launcher="other"), 2)
        event = await asyncio.wait_for(several.launchers.next_event(), 5)
        assert event.instance == 2
        await several.launchers.close()

    asyncio.run(story())

"""Versions of a deployment: one comes up beside what serves, takes its requests when it is good, and can be left again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bema.core.access import LOCAL_ADMIN
from bema.core.errors import Conflict, Denied, Invalid, NotFound
from bema.deploy.launch.launcher import MemoryLauncher, crashes, hangs, serves
from bema.deploy.model.deployment import CreateRequest, DeploymentInfo
from bema.deploy.model.function import FunctionSettings
from bema.deploy.orchestrator.service import Orchestrator
from bema.deploy.store.deployments import Store
from bema.runtime.discovery.memory import MemoryDiscovery
from tests.deploy.platform import ADA, BOB, Platform, eventually, script, until

Story = Callable[[Platform, Orchestrator], Awaitable[None]]


def told(folder: Path, story: Story) -> None:
    async def tell() -> None:
        platform = Platform(folder)
        async with platform.orchestrator() as orchestrator:
            await asyncio.wait_for(story(platform, orchestrator), 60)

    asyncio.run(tell())


def again(number: int, **more: Any) -> CreateRequest:
    return msgspec.structs.replace(script(code=f"app = {number}\n"), replace=True, **more)


async def deployed(orchestrator: Orchestrator, request: CreateRequest) -> DeploymentInfo:
    made = await orchestrator.create(request, ADA)
    return await orchestrator.settled(made.id, ADA)


async def settled(platform: Platform, orchestrator: Orchestrator, id: str, version: str) -> DeploymentInfo:
    """Once that version has taken over, and the one before it has gone."""
    info = await orchestrator.settled(id, ADA)
    assert info.version == version, info
    await eventually(lambda: {r.version for r in orchestrator._reconciler.instances_of(id)} == {version})
    return info


def running(orchestrator: Orchestrator, id: str) -> dict[str, int]:
    return {each.version: each.share for each in orchestrator._reconciler.instances_of(id)}


def test_deploying_again_makes_a_version_that_takes_over_when_it_serves(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        first = await deployed(orchestrator, again(1))
        assert (first.version, first.traffic) == ("v1", {"v1": 100})
        platform.launcher.outcomes["hello"] = hangs
        made = await orchestrator.create(again(2), ADA)
        assert (made.id, made.version, made.state) == (first.id, "v1", "ready")
        assert made.latest is not None and (made.latest.version, made.latest.state) == ("v2", "building")
        await eventually(lambda: len(platform.launcher.started) == 2)
        assert running(orchestrator, first.id)["v1"] == 100
        assert platform.launcher.started[-1].share == 0
        platform.launcher.announce(platform.launcher.instances[-1])
        info = await settled(platform, orchestrator, first.id, "v2")
        assert (info.state, info.traffic, info.latest) == ("ready", {"v2": 100}, None)
        [(stopped, _, reason)] = platform.launcher.stopped
        assert (stopped, reason) == (platform.launcher.instances[0], "replaced")
        assert platform.launcher.forgotten == [f"{first.id}/v1"], "nobody waits at its listener"
        labels = [(each.version, each.share, each.current) for each in await orchestrator.versions(first.id, ADA)]
        assert labels == [("v2", 100, True), ("v1", 0, False)]

    told(tmp_path, story)


def test_one_that_fails_changes_nothing_and_says_why(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        first = await deployed(orchestrator, again(1))
        platform.launcher.outcomes["hello"] = crashes(1, "KeyError: 'X'")
        info = await deployed(orchestrator, again(2))
        assert (info.version, info.state, info.error, info.traffic) == ("v1", "ready", None, {"v1": 100})
        assert info.latest is not None and info.latest.error is not None
        assert (info.latest.version, info.latest.state) == ("v2", "start_failed")
        assert info.latest.error.log == ("KeyError: 'X'",)
        assert running(orchestrator, first.id) == {"v1": 100}
        await orchestrator._reconciler.look_at_all()
        assert len(platform.launcher.started) == 2, "it is not tried again"
        del platform.launcher.outcomes["hello"]
        assert (await deployed(orchestrator, again(3))).version == "v3"

    told(tmp_path, story)


def test_a_build_that_fails_changes_nothing(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        platform.environments.failures["nope"] = "nope was not found"
        await deployed(orchestrator, again(1))
        bad = again(2, source={"type": "inline", "code": '# /// script\n# dependencies = ["nope"]\n# ///\napp = 1\n'})
        info = await deployed(orchestrator, bad)
        assert (info.version, info.state) == ("v1", "ready")
        assert info.latest is not None and info.latest.state == "build_failed"

    told(tmp_path, story)


def test_rolling_back_starts_the_one_before_and_goes_on_from_there(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        id = (await deployed(orchestrator, again(1))).id
        with pytest.raises(Invalid, match="no good version before v1"):
            await orchestrator.rollback(id, "", ADA)
        for number in (2, 3):
            await deployed(orchestrator, again(number))
            await settled(platform, orchestrator, id, f"v{number}")
        await orchestrator.rollback(id, "", ADA)
        await settled(platform, orchestrator, id, "v2")
        assert Path(platform.launcher.started[-1].script).read_text() == "app = 2\n"
        await orchestrator.rollback(id, "1", ADA)
        assert (await settled(platform, orchestrator, id, "v1")).latest is None
        with pytest.raises(NotFound, match="no version v9; it has v1, v2, v3"):
            await orchestrator.rollback(id, "v9", ADA)
        await deployed(orchestrator, again(4))
        await settled(platform, orchestrator, id, "v4")

    told(tmp_path, story)


def test_shares_begin_small_are_promoted_and_aborted(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        id = (await deployed(orchestrator, again(1))).id
        info = await deployed(orchestrator, again(2, share=10))
        assert (info.version, info.traffic) == ("v1", {"v1": 90, "v2": 10})
        await eventually(lambda: running(orchestrator, id) == {"v1": 90, "v2": 10})
        await orchestrator.traffic(id, {"v1": 50, "v2": 50}, "header:x-user", ADA)
        await eventually(lambda: running(orchestrator, id) == {"v1": 50, "v2": 50})
        await eventually(
            lambda: {r.terms.sticky for r in orchestrator._reconciler.instances_of(id)} == {"header:x-user"}
        )
        await orchestrator.traffic(id, {}, None, ADA)
        assert (await settled(platform, orchestrator, id, "v1")).traffic == {"v1": 100}
        await orchestrator.traffic(id, {"v2": 100}, None, ADA)
        assert (await settled(platform, orchestrator, id, "v2")).traffic == {"v2": 100}
        with pytest.raises(Invalid, match="100 together"):
            await orchestrator.traffic(id, {"v1": 50}, None, ADA)
        with pytest.raises(Invalid, match="sticky is 'x', not"):
            await orchestrator.traffic(id, {}, "x", ADA)

    told(tmp_path, story)


def test_what_needs_no_new_process_makes_no_version(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        id = (await deployed(orchestrator, again(1))).id
        same = await deployed(orchestrator, again(1, settings=FunctionSettings(timeout=5.0)))
        assert (same.version, same.latest, same.settings.timeout) == ("v1", None, 5.0)
        more = await orchestrator.configure(id, FunctionSettings(concurrency=3), ADA)
        assert (more.settings.timeout, more.settings.concurrency) == (5.0, 3)
        with pytest.raises(Invalid, match="memory: needs a new version"):
            await orchestrator.configure(id, FunctionSettings(memory=2**30), ADA)
        with pytest.raises(Invalid, match="concurrency is 0, not between"):
            await orchestrator.configure(id, FunctionSettings(concurrency=0), ADA)
        larger = await deployed(orchestrator, again(1, settings=FunctionSettings(memory=2**30)))
        assert (larger.version, larger.settings.memory, larger.settings.timeout) == ("v2", 2**30, 5.0)
        assert platform.launcher.started[-1].asks.memory == 2**30

    told(tmp_path, story)


def test_what_a_script_says_counts_less_than_what_was_said_when_it_was_deployed(tmp_path: Path):
    def saying(table: str, **more: Any) -> CreateRequest:
        block = f"# /// script\n# [tool.bema]\n{table}# ///\napp = 1\n"
        return again(0, source={"type": "inline", "code": block}, **more)

    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        table = '# timeout = 5\n# memory = "1GiB"\n# env = { A = "script", B = "script" }\n'
        said = FunctionSettings(timeout=9.0)
        info = await deployed(orchestrator, saying(table, settings=said, env={"A": "said"}))
        assert (info.settings.timeout, info.settings.memory) == (9.0, 2**30)
        assert platform.launcher.started[-1].env == {"A": "said", "B": "script"}
        info = await deployed(orchestrator, saying('# env = { B = "changed" }\n'))
        assert (info.settings.timeout, info.settings.memory) == (9.0, None), (
            "what needs a process comes with its version"
        )
        assert platform.launcher.started[-1].env == {"A": "said", "B": "changed"}

    told(tmp_path, story)


def test_a_dry_run_tells_what_would_change_and_changes_nothing(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        first = await orchestrator.dry_run(script(A="1"), ADA)
        assert (first.version, first.env_added) == ("v1", ("A",))
        id = (await deployed(orchestrator, script(A="1", B="2"))).id
        assert (await orchestrator.dry_run(script(A="1", B="2"), ADA)).version == ""
        change = await orchestrator.dry_run(
            msgspec.structs.replace(
                script(code='# /// script\n# dependencies = ["httpx"]\n# ///\napp = 1\n', A="9", C="3"),
                settings=FunctionSettings(memory=2**30, timeout=9.0),
            ),
            ADA,
        )
        assert (change.version, change.code, change.dependencies_added) == ("v2", True, ("httpx",))
        assert (change.env_added, change.env_changed, change.env_removed) == (("C",), ("A",), ("B",))
        assert change.settings == {"memory": (None, 2**30), "timeout": (None, 9.0)}
        assert [each.version for each in await orchestrator.versions(id, ADA)] == ["v1"]

    told(tmp_path, story)


def test_who_deploys_last_wins(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        id = (await deployed(orchestrator, again(0))).id
        await asyncio.gather(*(orchestrator.create(again(number), ADA) for number in range(1, 6)))
        last = platform.store.deployments()[id].version
        await settled(platform, orchestrator, id, last.label)
        assert last.label == "v6"

    told(tmp_path, story)


def test_an_administrator_acts_for_others_and_nobody_else_does(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        made = await orchestrator.create(again(1, owner="ada"), LOCAL_ADMIN)
        assert made.owner == "ada"
        assert (await orchestrator.read(made.id, ADA)).id == made.id
        with pytest.raises(Denied):
            await orchestrator.create(again(1, owner="ada"), BOB)
        for asked in (orchestrator.versions(made.id, BOB), orchestrator.rollback(made.id, "", BOB)):
            with pytest.raises(NotFound):
                await asked

    told(tmp_path, story)


def test_a_name_that_serves_is_taken_unless_it_is_to_be_replaced(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        await deployed(orchestrator, script())
        with pytest.raises(Conflict):
            await orchestrator.create(script(code="app = 2\n"), ADA)
        assert (await deployed(orchestrator, again(2))).version == "v2"

    told(tmp_path, story)


def test_events_tell_each_change_once(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        id = (await deployed(orchestrator, again(1))).id
        platform.launcher.outcomes["hello"] = crashes(1)
        await deployed(orchestrator, again(2))
        seen = [event async for event in orchestrator.events(id, ADA)]
        while seen[-1].state != "start_failed":
            seen += [event async for event in orchestrator.events(id, ADA, since=seen[-1].at)]
            await asyncio.sleep(0)
        states = [(event.version, event.state) for event in seen]
        assert states[-1] == ("v2", "start_failed")
        assert ("v1", "ready") in states
        assert len(seen) == len({event.at for event in seen})
        assert [event async for event in orchestrator.events(id, ADA, since=seen[-2].at)] == seen[-1:]

        async def following() -> str:
            async for event in orchestrator.events(id, ADA, follow=True, since=seen[-1].at):
                if (event.version, event.share, event.state) == ("v3", 100, "ready"):
                    return event.state
            return ""

        waiting = asyncio.create_task(following())
        del platform.launcher.outcomes["hello"]
        await deployed(orchestrator, again(3))
        assert await waiting == "ready"

    told(tmp_path, story)


@pytest.mark.parametrize("dies_at", ["candidate", "started", "served", "promoted"])
def test_an_orchestrator_that_dies_in_the_middle_is_followed_by_one_that_ends_the_rollout(tmp_path: Path, dies_at: str):
    async def tell() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            id = (await deployed(orchestrator, again(1))).id
            await eventually(lambda: bool(platform.store.deployments()[id].current))
            if dies_at != "promoted":
                platform.launcher.outcomes["hello"] = hangs
            await orchestrator.create(again(2), ADA)
            if dies_at in ("started", "served"):
                await eventually(lambda: len(platform.launcher.started) == 2)
            if dies_at == "promoted":
                await eventually(lambda: platform.store.deployments()[id].current == "v2")
        platform.launcher.outcomes.clear()
        if dies_at == "served":
            # nobody was there to hear it
            platform.launcher.announce(platform.launcher.instances[-1])
            platform.launcher._events = asyncio.Queue()
        platform.parts = dataclasses.replace(platform.parts, store=await Store.open(platform.engine))
        async with platform.orchestrator() as orchestrator:
            if dies_at == "started":
                platform.launcher.announce(platform.launcher.instances[-1])
            await asyncio.wait_for(settled(platform, orchestrator, id, "v2"), 30)
            assert platform.parts.store.deployments()[id].current == "v2"

    asyncio.run(tell())


def test_a_record_shows_the_share_of_its_version(tmp_path: Path):
    async def tell() -> None:
        platform, discovery = Platform(tmp_path), MemoryDiscovery()
        platform.launcher = MemoryLauncher(discovery)
        platform.parts = dataclasses.replace(platform.parts, launcher=platform.launcher)
        async with platform.orchestrator() as orchestrator:
            id = (await deployed(orchestrator, again(1))).id
            await deployed(orchestrator, again(2, share=25))
            view = await discovery.view()
            await eventually(lambda: sorted((i.version, i.share) for i in view.instances()) == [("v1", 75), ("v2", 25)])
            assert {i.deployment for i in view.instances()} == {id}

    asyncio.run(tell())


def test_what_keeps_data_is_stopped_first_and_comes_back_when_the_new_one_fails(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        keep = FunctionSettings(keep=True)
        id = (await deployed(orchestrator, again(1, settings=keep))).id
        await eventually(lambda: bool(platform.store.deployments()[id].current))

        def second_crashes(launcher: MemoryLauncher, instance: int) -> None:
            (crashes(1) if launcher.started[-1].version == "v2" else serves)(launcher, instance)

        platform.launcher.outcomes["hello"] = second_crashes
        await orchestrator.create(again(2, settings=keep), ADA)
        await eventually(lambda: len(platform.launcher.started) == 3)
        info = await orchestrator.settled(id, ADA)
        assert (info.version, info.state) == ("v1", "ready")
        assert [each.version for each in platform.launcher.started] == ["v1", "v2", "v1"]
        await deployed(orchestrator, again(3, settings=keep))
        assert (await until(orchestrator, id, "ready", ADA)).version == "v3"

    told(tmp_path, story)


def test_a_deployment_that_is_deleted_while_a_version_comes_up_is_gone(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        id = (await deployed(orchestrator, again(1))).id
        platform.launcher.outcomes["hello"] = hangs
        await orchestrator.create(again(2), ADA)
        await eventually(lambda: len(platform.launcher.started) == 2)
        await orchestrator.delete(id, ADA)
        await eventually(lambda: id in platform.launcher.forgotten)
        assert await platform.launcher.poll() == []

    told(tmp_path, story)

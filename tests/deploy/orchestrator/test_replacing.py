"""What failed keeps nobody from deploying under its name: other code takes its place, under its id and with its data."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from bema.core.errors import Conflict, Invalid, NotFound
from bema.deploy.launch.launcher import crashes, hangs
from bema.deploy.orchestrator.service import Orchestrator
from bema.deploy.store.deployments import Store
from tests.deploy.platform import ADA, BOB, Platform, eventually, script, until

UNBUILDABLE = '# /// script\n# dependencies = ["nope"]\n# ///\napp = 1\n'
MENDED = "app = 2\n"


def test_a_start_that_failed_is_replaced(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        platform.launcher.outcomes["hello"] = crashes(1, "KeyError: 'X'")
        async with platform.orchestrator() as orchestrator:
            bad = await orchestrator.create(script(A="1"), ADA)
            await until(orchestrator, bad.id, "start_failed")
            del platform.launcher.outcomes["hello"]
            good = await orchestrator.create(script(code=MENDED, B="2"), ADA)
            assert (good.id, good.version, good.state, good.error) == (bad.id, "v2", "building", None)
            await until(orchestrator, good.id, "ready")
            assert Path(platform.launcher.started[-1].script).read_text() == MENDED
            assert platform.launcher.started[-1].env == {"B": "2"}
            [deployment] = platform.store.deployments().values()
            assert [v.label for v in deployment.versions] == ["v2"], "what never served is not kept"
            assert set(platform.store.rollouts()[good.id].statuses) == {"v2"}
            assert len(await platform.engine.blobs()) == 1
            with pytest.raises(Conflict) as caught:
                await orchestrator.create(script(), ADA)
            assert "keeps what it wrote" in (caught.value.fix or "")

    asyncio.run(story())


def test_a_build_that_failed_is_replaced_also_after_a_restart_and_by_a_request_with_a_key(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        platform.environments.failures["nope"] = "nope was not found"
        async with platform.orchestrator() as orchestrator:
            bad = await orchestrator.create(script(code=UNBUILDABLE), ADA, key="first")
            await until(orchestrator, bad.id, "build_failed")
            assert (await orchestrator.create(script(code=UNBUILDABLE), ADA, key="first")).version == "v1"
        platform.parts = dataclasses.replace(platform.parts, store=await Store.open(platform.engine))
        async with platform.orchestrator() as again:
            await until(again, bad.id, "build_failed")
            made = await again.create(script(code=MENDED), ADA, key="second")
            assert made == await again.create(script(code=MENDED), ADA, key="second")
            assert (await until(again, bad.id, "ready")).version == "v2"

    asyncio.run(story())


def test_one_that_served_and_loops_is_replaced_and_stays_as_an_older_version(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            made = await orchestrator.create(script(), ADA)
            await until(orchestrator, made.id, "ready")
            platform.launcher.outcomes["hello"] = crashes(1)
            platform.launcher.end(platform.launcher.instances[-1], code=1)
            await until(orchestrator, made.id, "start_failed")
            del platform.launcher.outcomes["hello"]
            await orchestrator.create(script(code=MENDED), ADA)
            await until(orchestrator, made.id, "ready")
            [deployment] = platform.store.deployments().values()
            assert [v.label for v in deployment.versions] == ["v1", "v2"]

    asyncio.run(story())


def test_what_is_refused_leaves_the_failure_as_it_was(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        platform.launcher.outcomes["hello"] = crashes(1, "why")
        async with platform.orchestrator() as orchestrator:
            bad = await orchestrator.create(script(), ADA)
            await until(orchestrator, bad.id, "start_failed")
            with pytest.raises(Invalid):
                await orchestrator.create(script(code="def ("), ADA)
            info = await orchestrator.read(bad.id, ADA)
            assert (info.state, info.version) == ("start_failed", "v1")

    asyncio.run(story())


@pytest.mark.parametrize("state", ["building", "starting", "ready"])
def test_what_has_not_failed_keeps_its_name(tmp_path: Path, state: str):
    async def story() -> None:
        platform = Platform(tmp_path)
        if state == "starting":
            platform.launcher.outcomes["hello"] = hangs
        async with platform.orchestrator() as orchestrator:
            made = await orchestrator.create(script(), ADA)
            if state != "building":
                await until(orchestrator, made.id, state)
            with pytest.raises(Conflict) as caught:
                await orchestrator.create(script(code=MENDED), ADA)
            assert (caught.value.code, caught.value.details["id"]) == ("name_taken", made.id)

    asyncio.run(story())


def test_a_build_of_the_version_before_is_given_up(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        never, making = asyncio.Event(), platform.environments.make

        async def make(wanted, told=None):
            if wanted.code == b"app = 1\n":
                await never.wait()
            return await making(wanted)

        platform.environments.make = make  # type: ignore[method-assign]
        async with platform.orchestrator() as orchestrator:
            made = await orchestrator.create(script(), ADA)
            await eventually(lambda: (made.id, "v1") in orchestrator._reconciler._building)
            await orchestrator.update(made.id, script(code=MENDED), ADA)
            assert (await until(orchestrator, made.id, "ready")).version == "v2"

    asyncio.run(story())


def test_nobody_replaces_what_is_not_theirs(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            made = await orchestrator.create(script(), ADA)
            with pytest.raises(NotFound):
                await orchestrator.update(made.id, script(code=MENDED), BOB)
            platform.launcher.outcomes["hello"] = crashes(1)
            mine = await orchestrator.create(script(), BOB)
            assert mine.id != made.id

    asyncio.run(story())


def test_many_at_once_make_one_deployment(tmp_path: Path):
    async def many(orchestrator: Orchestrator) -> list[object]:
        asked = (orchestrator.create(script(code=f"app = {n}\n"), ADA) for n in range(5))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    async def story() -> None:
        platform = Platform(tmp_path)
        platform.launcher.outcomes["hello"] = crashes(1)
        async with platform.orchestrator() as orchestrator:
            bad = await orchestrator.create(script(), ADA)
            await until(orchestrator, bad.id, "start_failed")
            del platform.launcher.outcomes["hello"]
            done = await many(orchestrator)
            assert sum(not isinstance(each, Conflict) for each in done) == 1, done
            assert (await until(orchestrator, bad.id, "ready")).version == "v2"

    asyncio.run(story())

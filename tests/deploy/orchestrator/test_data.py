"""What a function wrote belongs to its owner and name: removing a deployment leaves it to the next one."""

import asyncio
import dataclasses
import os
from pathlib import Path

import pytest

from bema.core.access import LOCAL_ADMIN
from bema.core.errors import Conflict, NotFound, Refused
from bema.deploy.model.deployment import DeploymentInfo
from bema.deploy.orchestrator import data
from bema.deploy.orchestrator.service import Orchestrator
from bema.deploy.store.deployments import Store
from bema.state.engine import Mutation
from tests.deploy.platform import ADA, BOB, Platform, eventually, script, until


def home(platform: Platform, number: int = -1) -> Path:
    """The folder that the launcher was told of, made as it makes it."""
    workload = platform.launcher.started[number]
    folder = platform.parts.home(workload.home or workload.deployment)
    for each in ("home", "tmp"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    return folder / "home"


async def ready(platform: Platform, orchestrator: Orchestrator, name: str = "hello") -> DeploymentInfo:
    made = await orchestrator.create(script(name), ADA)
    return await until(orchestrator, made.id, "ready")


async def gone(platform: Platform, id: str) -> None:
    await eventually(lambda: id in platform.launcher.forgotten and not platform.parts.logs(id).exists())
    await asyncio.sleep(0.02)


def test_the_next_of_its_owner_and_name_finds_it(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            first = await ready(platform, orchestrator)
            (home(platform) / "notes.txt").write_text("mine")
            (home(platform).parent / "tmp" / "scratch").write_text("x")
            await orchestrator.delete(first.id, ADA)
            await gone(platform, first.id)
            [kept] = await orchestrator.data(ADA, kept=True)
            assert (kept.name, kept.deployment, kept.files, kept.bytes) == ("hello", None, 1, 4)
            assert kept.kept > 0
            assert not (tmp_path / "homes" / kept.id / "tmp").exists(), "what is temporary is nobody's"
            assert await orchestrator.data(BOB) == []

            second = await ready(platform, orchestrator)
            assert second.id != first.id
            assert (home(platform) / "notes.txt").read_text() == "mine"
            assert await orchestrator.data(ADA, kept=True) == []
            [mine] = await orchestrator.data(ADA, name="hello")
            assert mine.deployment == second.id

            other = await orchestrator.create(script(), BOB)
            await until(orchestrator, other.id, "ready")
            assert not (home(platform) / "notes.txt").exists(), (
                "another's function of that name has a folder of its own"
            )

    asyncio.run(story())


def test_it_outlives_removals_and_restarts_until_it_is_purged(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        for turn in range(3):
            async with platform.orchestrator() as orchestrator:
                made = await ready(platform, orchestrator)
                (home(platform) / f"{turn}.txt").write_text("x")
                await orchestrator.delete(made.id, ADA)
            platform.parts = dataclasses.replace(platform.parts, store=await Store.open(platform.engine))
        async with platform.orchestrator() as orchestrator:
            await eventually(lambda: not list((tmp_path / "logs").glob("*")))
            [kept] = await orchestrator.data(ADA, kept=True)
            assert kept.files == 3
            with pytest.raises(NotFound):
                await orchestrator.purge(kept.id, BOB)
            await orchestrator.purge(kept.id, ADA)
            assert not (tmp_path / "homes" / kept.id).exists()
            assert await orchestrator.data(ADA) == []
            with pytest.raises(NotFound):
                await orchestrator.purge(kept.id, ADA)

    asyncio.run(story())


def test_removing_with_purge_leaves_nothing(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            made = await ready(platform, orchestrator)
            folder = home(platform)
            (folder / "notes.txt").write_text("mine")
            await orchestrator.delete(made.id, ADA, purge=True)
            await eventually(lambda: not folder.exists())
            assert await orchestrator.data(ADA) == []

    asyncio.run(story())


def test_what_holds_nothing_is_not_kept(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            made = await ready(platform, orchestrator)
            (home(platform) / "empty").mkdir()
            await orchestrator.delete(made.id, ADA)
            await eventually(lambda: not home_of(tmp_path))
            assert platform.store.data() == ()

    asyncio.run(story())


def home_of(folder: Path) -> list[Path]:
    return list((folder / "homes").glob("*"))


def test_data_in_use_cannot_be_purged(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            await ready(platform, orchestrator)
            (home(platform) / "notes.txt").write_text("mine")
            [mine] = await orchestrator.data(ADA)
            with pytest.raises(Conflict):
                await orchestrator.purge(mine.id, ADA)
            assert (home(platform) / "notes.txt").exists()

    asyncio.run(story())


def test_the_next_one_starts_when_the_one_before_has_stopped_writing(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            first = await ready(platform, orchestrator)
            (home(platform) / "notes.txt").write_text("mine")
            ends: list[int] = []

            async def slow(instance: int, grace: float, reason: str) -> None:
                ends.append(instance)

            platform.launcher.stop = slow  # type: ignore[method-assign]
            await orchestrator.delete(first.id, ADA)
            second = await orchestrator.create(script(), ADA)
            await eventually(lambda: bool(ends))
            await until(orchestrator, second.id, "starting")
            await asyncio.sleep(0.05)
            assert len(platform.launcher.started) == 1
            platform.launcher.end(ends[0], code=0, cause="stopped")
            await until(orchestrator, second.id, "ready")
            assert (home(platform) / "notes.txt").exists()

    asyncio.run(story())


def test_one_whose_record_cannot_be_read_leaves_its_data_too(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            first = await ready(platform, orchestrator)
            (home(platform) / "notes.txt").write_text("mine")
            await platform.engine.apply([Mutation(f"deployments/{first.id}", b'{"id": 7')])
            await orchestrator.delete(first.id, ADA)
            await gone(platform, first.id)
            await ready(platform, orchestrator)
            assert (home(platform) / "notes.txt").read_text() == "mine"

    asyncio.run(story())


def test_what_is_known_of_no_folder_removes_none(tmp_path: Path):
    """A record of data that cannot be read hides whose folder it is: until it is mended, no folder is nobody's."""

    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            first = await ready(platform, orchestrator)
            (home(platform) / "notes.txt").write_text("mine")
            await orchestrator.delete(first.id, ADA)
            await gone(platform, first.id)
        await platform.engine.apply([Mutation("data/ada/hello", b"{")])
        async with platform.orchestrator() as again:
            other = await ready(platform, again, "other")
            await again.delete(other.id, ADA)
            await gone(platform, other.id)
        assert (home(platform, 0) / "notes.txt").exists()

    asyncio.run(story())


def test_deployments_from_before_there_were_records_keep_theirs(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            first = await ready(platform, orchestrator)
            await platform.engine.apply([Mutation("data/ada/hello", None)])
            (home(platform) / "notes.txt").write_text("mine")
            assert [each.id for each in await orchestrator.data(LOCAL_ADMIN)] == [first.id]
            await orchestrator.delete(first.id, ADA)
            await gone(platform, first.id)
            await ready(platform, orchestrator)
            assert (home(platform) / "notes.txt").exists()

    asyncio.run(story())


def test_what_cannot_be_written_down_is_not_deleted(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            made = await ready(platform, orchestrator)
            (home(platform) / "notes.txt").write_text("mine")

            async def full(mutations: object) -> int:
                raise Refused("the disk is full", code="state_unwritable")

            apply, platform.engine.apply = platform.engine.apply, full  # type: ignore[method-assign]
            with pytest.raises(Refused):
                await orchestrator.delete(made.id, ADA, purge=True)
            platform.engine.apply = apply  # type: ignore[method-assign]
            assert (await orchestrator.read(made.id, ADA)).state == "ready"
            assert (home(platform) / "notes.txt").exists()

    asyncio.run(story())


@pytest.mark.parametrize("what", ["link", "links to a folder", "closed folder"])
def test_whatever_may_be_something_is_kept(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            made = await ready(platform, orchestrator)
            inside = home(platform) / "inside"
            if what == "closed folder":
                inside.mkdir()
                scandir = os.scandir

                def closed(path: str) -> object:
                    if str(path) == str(inside):
                        raise PermissionError(13, "closed", path)
                    return scandir(path)

                monkeypatch.setattr(os, "scandir", closed)  # root may look into any folder
            else:
                inside.symlink_to("nowhere" if what == "link" else tmp_path)
            await orchestrator.delete(made.id, ADA)
            await gone(platform, made.id)
            assert len(await orchestrator.data(ADA, kept=True)) == 1
            assert inside.is_symlink() or inside.is_dir()

    asyncio.run(story())


def test_of_very_many_files_some_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data, "_MOST", 3)

    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            await ready(platform, orchestrator)
            for number in range(9):
                (home(platform) / str(number)).touch()
            assert [each.files for each in await orchestrator.data(ADA)] == [3]

    asyncio.run(story())

"""Seeds: the file is the desired state, and what is told is what happened to each."""

import asyncio
import dataclasses
from pathlib import Path

from bema.core.access import LOCAL_ADMIN
from bema.deploy.launch.launcher import crashes
from bema.deploy.orchestrator.seeds import Sown, left, refused, report, sow, unnamed
from bema.deploy.orchestrator.service import Orchestrator
from bema.deploy.store.deployments import Store
from tests.deploy.platform import Platform, script, until


def seed(folder: Path, name: str = "hello.py", code: str = "app = 1\n") -> Path:
    (folder / name).write_text(code)
    return folder / name


async def sown(platform: Platform, orchestrator: Orchestrator, *seeds: Path) -> list[Sown]:
    return await sow(seeds, orchestrator, platform.parts.store, LOCAL_ADMIN)


async def again(platform: Platform) -> None:
    """What a restart leaves: the store as it is on disk."""
    platform.parts = dataclasses.replace(platform.parts, store=await Store.open(platform.engine))


def test_an_edited_one_replaces_what_runs(tmp_path: Path):
    async def story() -> None:
        platform, file = Platform(tmp_path), seed(tmp_path)
        async with platform.orchestrator() as orchestrator:
            [first] = await sown(platform, orchestrator, file)
            assert (first.done, first.said) == ("deployed", "")
            await until(orchestrator, first.id, "ready")
        await again(platform)
        async with platform.orchestrator() as orchestrator:
            [same] = await sown(platform, orchestrator, file)
            assert (same.id, same.done) == (first.id, "")
            file.write_text("app = 2\n")
            [edited] = await sown(platform, orchestrator, file)
            assert (edited.id, edited.done) == (first.id, "replaced")
            info = await orchestrator.settled(first.id, LOCAL_ADMIN)
            assert Path(platform.launcher.started[-1].script).read_text() == "app = 2\n"
            assert report(file, info, "URL", "bema", edited.done).startswith(
                "hello: ready  URL, replaced by v2 since the file was edited"
            )

    asyncio.run(story())


def test_one_that_failed_is_mended_by_its_file(tmp_path: Path):
    async def story() -> None:
        platform, file = Platform(tmp_path), seed(tmp_path)
        platform.launcher.outcomes["hello"] = crashes(1, "why")
        async with platform.orchestrator() as orchestrator:
            [first] = await sown(platform, orchestrator, file)
            info = await until(orchestrator, first.id, "start_failed")
            assert report(file, info, "URL", "bema").splitlines()[1:] == [
                "  hello never listened: it ended with code 1",
                "  bema logs hello",
            ]
        del platform.launcher.outcomes["hello"]
        file.write_text("app = 2\n")
        async with platform.orchestrator() as orchestrator:
            await sown(platform, orchestrator, file)
            await until(orchestrator, first.id, "ready")

    asyncio.run(story())


def test_a_refused_one_is_told_with_its_reason_and_changes_nothing(tmp_path: Path):
    async def story() -> None:
        platform, file = Platform(tmp_path), seed(tmp_path)
        bad, latin, none = seed(tmp_path, "bad.py", "def (\x1b[31m"), tmp_path / "latin.py", tmp_path / "none.py"
        latin.write_bytes(b"\xff")
        async with platform.orchestrator() as orchestrator:
            [first] = await sown(platform, orchestrator, file)
            await until(orchestrator, first.id, "ready")
            file.write_text("x = (\n")
            told = [refused(one, "bema") for one in await sown(platform, orchestrator, file, bad, latin, none)]
            assert told[0].startswith("hello: refused, it runs on as it was deployed: syntax_error: line 1")
            assert told[1].startswith("bad: refused, it is not deployed: syntax_error: line 1")
            assert str(bad) in told[1].splitlines()[1]
            assert "\x1b" not in told[1]
            assert told[2].startswith("latin: refused, it is not deployed: it is not UTF-8: byte 0")
            assert told[3].startswith("none: refused, it is not deployed: it cannot be read: No such file")
            assert (await orchestrator.read(first.id, LOCAL_ADMIN)).version == "v1"

    asyncio.run(story())


def test_one_that_was_removed_stays_so_and_is_told(tmp_path: Path):
    async def story() -> None:
        platform, file = Platform(tmp_path), seed(tmp_path)
        async with platform.orchestrator() as orchestrator:
            [first] = await sown(platform, orchestrator, file)
            await orchestrator.delete(first.id, LOCAL_ADMIN)
            file.write_text("app = 2\n")
            [gone] = await sown(platform, orchestrator, file)
            assert (gone.id, gone.done) == ("", "removed")
            assert refused(gone, "bema") == f"hello: not deployed, since it was removed\n  bema deploy {file}"
            assert (await orchestrator.list(LOCAL_ADMIN)).items == []
            by_hand = await orchestrator.create(script(code="app = 2\n"), LOCAL_ADMIN)
            [back] = await sown(platform, orchestrator, file)
            assert (back.id, back.said) == (by_hand.id, "")

    asyncio.run(story())


def test_what_no_seed_made_is_left_alone(tmp_path: Path):
    async def story() -> None:
        platform, file = Platform(tmp_path), seed(tmp_path)
        async with platform.orchestrator() as orchestrator:
            made = await orchestrator.create(script(code="app = 'mine'\n"), LOCAL_ADMIN)
            [one] = await sown(platform, orchestrator, file)
            assert one.id == ""
            assert one.said.startswith("name_taken: a deployment named 'hello' exists")
            assert (await orchestrator.read(made.id, LOCAL_ADMIN)).version == "v1"
            file.write_text("app = 'mine'\n")
            [one] = await sown(platform, orchestrator, file)
            assert (one.id, one.done) == (made.id, "deployed"), "the same code is the seed's"

    asyncio.run(story())


def test_one_that_is_named_no_more_is_left_and_told(tmp_path: Path):
    async def story() -> None:
        platform, one, other = Platform(tmp_path), seed(tmp_path), seed(tmp_path, "Other File.py")
        async with platform.orchestrator() as orchestrator:
            await sown(platform, orchestrator, one, other)
            [rollout] = unnamed([one], platform.parts.store)
            assert left(rollout, "bema") == (
                "other-file: deployed by an earlier seed, and left as it is\n  bema rm other-file"
            )
            assert unnamed([one, other], platform.parts.store) == []
            assert {info.name for info in (await orchestrator.list(LOCAL_ADMIN)).items} == {"hello", "other-file"}

    asyncio.run(story())


def test_two_of_one_name_are_one_and_a_refusal(tmp_path: Path):
    async def story() -> None:
        platform, one = Platform(tmp_path), seed(tmp_path)
        (tmp_path / "more").mkdir()
        two = seed(tmp_path / "more", code="app = 2\n")
        async with platform.orchestrator() as orchestrator:
            first, second = await sown(platform, orchestrator, one, two)
            assert first.done == "deployed"
            assert second.said == f"{one} is deployed under that name already"
            assert len((await orchestrator.list(LOCAL_ADMIN)).items) == 1

    asyncio.run(story())

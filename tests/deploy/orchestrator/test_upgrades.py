"""The same script with newer packages: a version like any other, whose lock is stored before anything is built."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import msgspec
import pytest

from bema.core.access import LOCAL_ADMIN
from bema.core.errors import Conflict, Failed, NotFound
from bema.deploy.build.environments import Made, MemoryEnvironments, UvEnvironments, Wanted
from bema.deploy.build.progress import Told, unheard
from bema.deploy.build.uv import Uv
from bema.deploy.launch.launcher import crashes
from bema.deploy.model.deployment import CreateRequest
from bema.deploy.model.outdated import OutdatedPackage
from bema.deploy.orchestrator.service import Orchestrator
from tests.deploy.orchestrator.test_versions import Story, deployed, settled
from tests.deploy.platform import ADA, BOB, Platform, eventually, script

LOCK = 'version = 1\n\n[[package]]\nname = "six"\nversion = "{}"\n'
OLD, NEW = LOCK.format("1.16.0"), LOCK.format("1.17.0")
CODE = '# /// script\n# dependencies = ["six"]\n# ///\napp = 1\n'


class LockedEnvironments(MemoryEnvironments):
    """Makes what is locked of its lock, and of anything else a lock that is old; asking the index is let go by `asked`."""

    def __init__(self) -> None:
        super().__init__()
        self.newest = NEW
        self.asking, self.answers = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def make(self, wanted: Wanted, told: Told = unheard) -> Made:
        return msgspec.structs.replace(await super().make(wanted, told), lock=wanted.lock or OLD)

    async def newest_lock(self, wanted: Wanted) -> str:
        self.asking.set()
        await self.answers.wait()
        return self.newest


def told(folder: Path, story: Story) -> None:
    async def tell() -> None:
        platform = Platform(folder)
        platform.environments = LockedEnvironments()
        platform.parts = dataclasses.replace(platform.parts, environments=platform.environments)
        async with platform.orchestrator() as orchestrator:
            await asyncio.wait_for(story(platform, orchestrator), 120)

    asyncio.run(tell())


def asked(code: str = CODE) -> CreateRequest:
    return msgspec.structs.replace(script(code=code, MODE="test"), replace=True)


def locks(platform: Platform, id: str) -> dict[str, str]:
    return {label: status.build.lock for label, status in platform.store.rollouts()[id].statuses.items()}


def test_the_next_version_is_the_same_with_newer_packages(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        id = (await deployed(orchestrator, asked())).id
        info = await orchestrator.upgrade(id, ADA)
        assert info.packages == (OutdatedPackage("six", ("1.16.0",), ("1.17.0",)),)
        assert (info.version, info.state) == ("v1", "ready"), "the old one serves meanwhile"
        assert info.latest is not None and (info.latest.version, info.latest.state) == ("v2", "building")
        await settled(platform, orchestrator, id, "v2")
        assert platform.environments.made[-1].lock == NEW
        assert locks(platform, id) == {"v1": OLD, "v2": NEW}
        first, second = platform.store.deployments()[id].versions
        assert msgspec.structs.replace(second, number=1, created=first.created) == first
        assert platform.launcher.started[-1].env == {"MODE": "test"}
        await orchestrator.rollback(id, "", ADA)
        await settled(platform, orchestrator, id, "v1")

    told(tmp_path, story)


def test_its_lock_is_there_before_it_is_built(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        id = (await deployed(orchestrator, asked())).id
        stored, update = [], platform.store.update

        async def seen(*given, **more) -> None:
            await update(*given, **more)
            stored.append(locks(platform, id))

        platform.store.update = seen  # type: ignore[method-assign]
        await orchestrator.upgrade(id, ADA)
        assert stored == [{"v1": OLD, "v2": NEW}]

    told(tmp_path, story)


def test_a_lock_that_comes_out_the_same_makes_no_version(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        id = (await deployed(orchestrator, asked())).id
        await orchestrator.upgrade(id, ADA)
        await settled(platform, orchestrator, id, "v2")
        info = await orchestrator.upgrade(id, ADA)
        assert (info.version, info.latest, info.packages) == ("v2", None, ())
        assert [each.version for each in await orchestrator.versions(id, ADA)] == ["v2", "v1"]

    told(tmp_path, story)


def test_deploying_the_same_script_again_keeps_the_newer_lock(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        id = (await deployed(orchestrator, asked())).id
        await orchestrator.upgrade(id, ADA)
        await settled(platform, orchestrator, id, "v2")
        info = await deployed(orchestrator, asked())
        assert (info.id, info.version, info.latest) == (id, "v2", None)

    told(tmp_path, story)


def test_packages_that_do_not_serve_change_nothing(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        id = (await deployed(orchestrator, asked())).id
        platform.launcher.outcomes["hello"] = crashes(1, "ImportError: six")
        await orchestrator.upgrade(id, ADA)
        info = await orchestrator.settled(id, ADA)
        assert (info.version, info.state) == ("v1", "ready")
        assert info.latest is not None and (info.latest.version, info.latest.state) == ("v2", "start_failed")
        del platform.launcher.outcomes["hello"]
        await eventually(lambda: not platform.store.deployments()[id].candidate)
        await orchestrator.upgrade(id, ADA)
        await settled(platform, orchestrator, id, "v3")

    told(tmp_path, story)


def test_a_version_that_was_asked_for_meanwhile_is_not_undone(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        environments = platform.environments
        assert isinstance(environments, LockedEnvironments)
        id = (await deployed(orchestrator, asked())).id
        environments.answers.clear()
        upgrade = asyncio.create_task(orchestrator.upgrade(id, ADA))
        await environments.asking.wait()
        await deployed(orchestrator, asked(CODE + "more = 1\n"))
        environments.answers.set()
        with pytest.raises(Conflict, match="meanwhile"):
            await upgrade
        await settled(platform, orchestrator, id, "v2")

    told(tmp_path, story)


def test_what_cannot_be_upgraded_says_why(tmp_path: Path):
    async def story(platform: Platform, orchestrator: Orchestrator) -> None:
        platform.environments.failures["six"] = "six was not found"
        info = await deployed(orchestrator, asked())
        assert info.state == "build_failed"
        with pytest.raises(Conflict, match="hello v1 has no lock yet"):
            await orchestrator.upgrade(info.id, ADA)
        platform.environments.failures.clear()
        await deployed(orchestrator, asked())
        platform.environments.newest = "not a lock"
        with pytest.raises(Failed, match="cannot be read"):
            await orchestrator.upgrade(info.id, ADA)
        with pytest.raises(NotFound):
            await orchestrator.upgrade(info.id, BOB)

    told(tmp_path, story)


def test_the_real_index_is_asked_and_what_it_has_is_installed(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        uv = UvEnvironments(tmp_path / "environments", Uv())
        platform.parts = dataclasses.replace(platform.parts, environments=uv)
        async with platform.orchestrator() as orchestrator:
            made = await orchestrator.create(asked(), LOCAL_ADMIN)
            await orchestrator.settled(made.id, LOCAL_ADMIN)
            assert (await orchestrator.upgrade(made.id, LOCAL_ADMIN)).packages == ()
            before = platform.store.rollouts()[made.id]
            old = _older(before.status.build.lock)
            stale = msgspec.structs.replace(before.status, build=msgspec.structs.replace(before.status.build, lock=old))
            await platform.store.record(made.id, "v1", stale)
            (package,) = (await orchestrator.upgrade(made.id, LOCAL_ADMIN)).packages
            assert (package.name, package.locked) == ("six", ("1.0.0",))
            info = await orchestrator.settled(made.id, LOCAL_ADMIN)
            assert (info.version, info.state) == ("v2", "ready")
            build = platform.store.rollouts()[made.id].status.build
            assert build.lock == before.status.build.lock
            (six,) = (tmp_path / "environments" / build.key).rglob(f"six-{package.newest[0]}.dist-info")
            assert six.is_dir()

    asyncio.run(asyncio.wait_for(story(), 600))


def _older(lock: str) -> str:
    """The lock as it were of long ago."""
    head, name, rest = lock.partition('name = "six"\nversion = "')
    return f"{head}{name}1.0.0{rest[rest.index(chr(34)) :]}"

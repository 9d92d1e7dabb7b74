"""Old versions, layers and environments leave; what is wanted, or young, stays."""

import asyncio
import os
import time
from pathlib import Path

from bema.deploy.build.folders import MARKER, WORK
from bema.deploy.build.layers import touch
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.deployment import Build, Deployment, ScriptEntry, Version, VersionStatus
from bema.deploy.orchestrator.garbage import sweep, sweep_while_up
from tests.deploy.platform import ADA, Platform, eventually, script, until


def test_what_nobody_wants_goes_after_a_week(tmp_path: Path):
    platform = Platform(tmp_path)
    version = Version(number=1, digest="wanted", entry=ScriptEntry())
    deployment = Deployment(id="id", name="n", owner="o", versions=(version,), created=0, updated=0)
    asyncio.run(platform.store.create(deployment, Bundle.of_script(b"")))
    asyncio.run(platform.store.record("id", "v1", VersionStatus(build=Build(state="done", key="used"))))
    old = time.time() - 8 * 24 * 3600
    for name in (
        "versions/wanted",
        "versions/old",
        "environments/used",
        "environments/old",
        "layers/old",
        "layers/new",
    ):
        (tmp_path / name / "inside").mkdir(parents=True)
        os.utime(tmp_path / name, (old, old))
    for name in ("environments/used.lock", "environments/old.lock"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (old, old))
    touch(tmp_path / "layers" / "new")
    gone = {str(path.relative_to(tmp_path)) for path in sweep(platform.parts)}
    assert gone == {"versions/old", "environments/old", "environments/old.lock", "layers/old"}
    left = {
        str(p.relative_to(tmp_path))
        for folder in ("versions", "environments", "layers")
        for p in (tmp_path / folder).iterdir()
    }
    assert left == {"versions/wanted", "environments/used", "environments/used.lock", "layers/new"}


def test_a_new_state_has_nothing_to_sweep(tmp_path: Path):
    assert sweep(Platform(tmp_path).parts) == []
    touch(tmp_path / "no" / "such" / "folder")


def orphaned(folder: Path) -> Path:
    orphan = folder / "layers" / "old"
    orphan.mkdir(parents=True)
    os.utime(orphan, (0, 0))
    return orphan


def test_a_new_platform_sweeps(tmp_path: Path):
    async def story() -> None:
        orphan = orphaned(tmp_path)
        async with Platform(tmp_path).orchestrator():
            await eventually(lambda: not orphan.exists())

    asyncio.run(story())


def test_what_was_never_finished_goes_at_every_start(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as first:
            info = await first.create(script(), ADA)
            await until(first, info.id, "ready")
        half = [tmp_path / name for name in ("environments/half", f"environments/{WORK}a", f"layers/{WORK}b")]
        whole = [tmp_path / name for name in ("environments/whole", "layers/whole")]
        for folder in (*half, *whole):
            folder.mkdir(parents=True)
            (folder / "lib.py").touch()
        (whole[0] / MARKER).touch()
        async with platform.orchestrator():
            await eventually(lambda: not any(folder.exists() for folder in half))
        assert all(folder.exists() for folder in whole)

    asyncio.run(story())


def test_nothing_is_swept_where_something_runs(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as first:
            info = await first.create(script(), ADA)
            await until(first, info.id, "ready")
        orphan = orphaned(tmp_path)
        async with platform.orchestrator() as second:
            await until(second, info.id, "ready")
            await second.create(script("another"), ADA)
        assert orphan.exists()

    asyncio.run(story())


def test_while_the_platform_is_up_only_what_was_unwanted_before_goes(tmp_path: Path):
    platform = Platform(tmp_path)
    old = time.time() - 8 * 24 * 3600

    def there(*names: str) -> None:
        for name in names:
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            os.utime(tmp_path / name, (old, old))

    there("environments/draining", "environments/again", "layers/of-what-runs")
    (tmp_path / "environments" / "young").mkdir()
    unwanted, gone = sweep_while_up(platform.parts, set())
    assert (len(unwanted), gone) == (2, [])
    # another version was deployed, which has the same lock
    version = Version(number=1, digest="digest", entry=ScriptEntry())
    deployment = Deployment(id="id", name="n", owner="o", versions=(version,), created=0, updated=0)
    asyncio.run(platform.store.create(deployment, Bundle.of_script(b"")))
    asyncio.run(platform.store.record("id", "v1", VersionStatus(build=Build(state="done", key="again"))))
    there("versions/left")
    unwanted, gone = sweep_while_up(platform.parts, unwanted)
    assert gone == [tmp_path / "environments" / "draining"]
    assert unwanted == {tmp_path / "versions" / "left"}
    left = {path.name for folder in ("environments", "layers", "versions") for path in (tmp_path / folder).iterdir()}
    assert left == {"again", "young", "of-what-runs", "left"}

"""What a function asks for of isolation, and the platform beside it, is what its instance is started with."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from bema.core.limits import DEFAULTS
from bema.deploy.launch.workload import Workload
from bema.deploy.model.isolation import Isolation
from tests.deploy.platform import ADA, Platform, script, until

BLOCK = "# /// script\n# [tool.bema]\n{}# ///\napp = 1\n"


def started(folder: Path, block: str, **parts: object) -> Workload:
    """What the launcher is given for a script with that block."""

    async def story() -> Workload:
        platform = Platform(folder)
        platform.parts = dataclasses.replace(platform.parts, **parts)  # type: ignore[arg-type]
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(code=BLOCK.format(block)), ADA)
            await until(orchestrator, info.id, "ready")
            return platform.launcher.started[0]

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("block", "floor", "given"),
    [
        ("", Isolation(kind="standard"), Isolation(kind="standard")),
        ('# isolation = "strict"\n', Isolation(kind="standard"), Isolation(kind="strict")),
        ('# isolation = "none"\n', Isolation(kind="standard"), Isolation(kind="standard")),
        ('# network = "none"\n', Isolation(kind="filtered"), Isolation(kind="filtered", network=())),
        ('# network = "any"\n', Isolation(network=(53, 443)), Isolation(network=(53, 443))),
        (
            '# isolation = "standard"\n# network = "80,443"\n',
            Isolation(kind="strict", network=(53, 443), read=("/models",)),
            Isolation(kind="strict", network=(443,), read=("/models",)),
        ),
    ],
)
def test_a_script_asks_for_more_and_is_not_heard_when_it_asks_for_less(
    tmp_path: Path, block: str, floor: Isolation, given: Isolation
) -> None:
    assert started(tmp_path, block, isolation=floor).isolation == given


def test_an_instance_has_the_bounds_of_the_platform(tmp_path: Path) -> None:
    limits = DEFAULTS.but(instance_memory=1 << 30, instance_disk=1 << 20)
    bounds = started(tmp_path, "", limits=limits).limits.bounds
    assert (bounds.memory, bounds.disk, bounds.files) == (1 << 30, 1 << 20, DEFAULTS.instance_files)

"""The launcher of processes keeps the laws of every launcher, with a real keeper and real processes."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from bema.deploy.launch.workload import Workload
from bema.testing.conformance import Law, laws
from bema.testing.conformance.launcher import LauncherTrial
from tests.deploy.keeper.conftest import Platform, platform
from tests.deploy.launch.test_process import APP, Stage, own_state

__all__ = ["own_state", "platform"]


class ProcessTrial(LauncherTrial):
    async def close(self) -> None:
        launcher: Any = self.launcher
        await launcher.close()


@pytest.mark.parametrize("law", laws("launcher"), ids=str)
def test_process_launcher(platform: Platform, law: Law) -> None:
    async def trial() -> LauncherTrial:
        stage = Stage(platform, start_limit=30.0)

        def given(code: str) -> Workload:
            return stage.given(code, name="app", deployment=str(uuid.uuid4()))

        launcher = await stage.connect()
        return ProcessTrial(launcher, lambda: given(APP), lambda: given("raise SystemExit(3)"))

    platform.ready()
    law(trial)

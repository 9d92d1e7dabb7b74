"""The launcher of processes keeps the laws of every launcher, with a real keeper and real processes."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from bema.deploy.launchers import Start
from bema.testing.conformance import Law, laws
from bema.testing.conformance.launcher import Trial
from tests.deploy.keeper.conftest import Platform, platform
from tests.deploy.test_launching import APP, Stage, own_state

__all__ = ["own_state", "platform"]


class ProcessTrial(Trial):
    async def close(self) -> None:
        launcher: Any = self.launcher
        await launcher.close()


@pytest.mark.parametrize("law", laws("launcher"), ids=str)
def test_process_launcher(platform: Platform, law: Law) -> None:
    async def trial() -> Trial:
        stage = Stage(platform, start_limit=30.0)

        def start(instance: int, code: str) -> Start:
            return stage.start(code, name="app", instance=instance, deployment=str(uuid.uuid4()))

        launcher = await stage.connect()
        return ProcessTrial(launcher, lambda i: start(i, APP), lambda i: start(i, "raise SystemExit(3)"))

    platform.ready()
    law(trial)

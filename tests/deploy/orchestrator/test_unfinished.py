"""A version with durable calls that go on is kept and runs, beside whatever was deployed since."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

from bema.core.errors import Unavailable
from bema.deploy.orchestrator import reconciler
from bema.deploy.orchestrator.unfinished import LiveVersions
from tests.deploy.platform import ADA, Platform, eventually, script


class Kept:
    """Calls as the platform's service tells of them, for every deployment that is asked for."""

    def __init__(self) -> None:
        self.versions: dict[str, bool] = {}
        self.away = False
        self.asked = 0

    async def live(self, data: list[str]) -> LiveVersions:
        self.asked += 1
        if self.away:
            raise Unavailable("nobody answers")
        return {each: dict(self.versions) for each in data}


def test_it_runs_until_its_last_call_has_ended(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(reconciler, "_CALLS", 0.01)

    async def story() -> None:
        platform, calls = Platform(tmp_path), Kept()
        platform.parts = dataclasses.replace(platform.parts, calls=calls)
        async with platform.orchestrator() as orchestrator:
            id = (await orchestrator.create(script(), ADA)).id
            await orchestrator.settled(id, ADA)

            def running() -> dict[str, int]:
                return {each.version: each.share for each in orchestrator._reconciler.instances_of(id)}

            for number in range(2, 14):
                calls.versions = {"v1": True}
                await orchestrator.update(id, script(code=f"app = {number}\n"), ADA)
                assert (await orchestrator.settled(id, ADA)).version == f"v{number}"
            assert "v1" in platform.store.deployments()[id].versions[0].label
            await eventually(lambda: running() == {"v1": 0, "v13": 100})
            calls.away, asked = True, calls.asked
            await eventually(lambda: calls.asked > asked + 3)
            assert running() == {"v1": 0, "v13": 100}, "who cannot be asked changes nothing"
            calls.away, calls.versions = False, {"v1": False}
            await eventually(lambda: running() == {"v13": 100})
            await orchestrator.update(id, script(code="app = 14\n"), ADA)
            assert platform.store.deployments()[id].versions[0].label == "v1", "its call may be told to go on"
            calls.versions = {}
            await orchestrator.update(id, script(code="app = 15\n"), ADA)
            assert platform.store.deployments()[id].versions[0].label != "v1"

    asyncio.run(story())

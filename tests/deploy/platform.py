"""An orchestrator with every part in memory, for the tests of this folder."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from bema.core.access import LOCAL_ADMIN, Kind, Principal, holder
from bema.deploy.build.environments import MemoryEnvironments
from bema.deploy.build.pythons import FoundPythons, Python
from bema.deploy.build.uv import Uv
from bema.deploy.launch.launcher import MemoryLauncher
from bema.deploy.launch.workload import Workload, WorkloadEnvironment
from bema.deploy.model.deployment import CreateRequest, DeploymentInfo
from bema.deploy.model.restarts import RestartPolicy
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.orchestrator.service import Orchestrator
from bema.deploy.store.deployments import Store
from bema.state.memory import MemoryEngine

ADA, BOB = holder(Kind.USER, "ada"), holder(Kind.USER, "bob")


def workload(name: str = "api", deployment: str = "", **more: Any) -> Workload:
    """One whose environment is not there: for launchers that start no process."""
    given: dict[str, Any] = {
        "deployment": deployment or str(uuid.uuid4()),
        "name": name,
        "version": "v1",
        "environment": WorkloadEnvironment("python", "/layer"),
        "script": "/script.py",
    }
    return Workload(**given | more)


class MemoryLayers:
    async def layer(self, python: Python) -> Path:
        return Path("/layer")


class LastingEngine(MemoryEngine):
    """What it holds outlives who closes it, as a disk does."""

    async def close(self) -> None:
        return None


class Platform:
    """Parts that outlive an orchestrator: a store, a launcher, environments."""

    def __init__(self, folder: Path, policy: RestartPolicy | None = None, store: Store | None = None) -> None:
        self.launcher = MemoryLauncher()
        self.environments = MemoryEnvironments()
        self.engine = LastingEngine()
        self.store = store or Store(self.engine)
        self.failed: list[str] = []
        self.parts = Parts(
            state=folder,
            store=self.store,
            launcher=self.launcher,
            environments=self.environments,
            layers=MemoryLayers(),
            pythons=FoundPythons(Uv()),
            policy=policy or RestartPolicy(),
        )

    @contextlib.asynccontextmanager
    async def orchestrator(self) -> AsyncIterator[Orchestrator]:
        orchestrator = Orchestrator()
        await orchestrator.begin(self.parts, failed=lambda: self.failed.append("ended"))
        try:
            yield orchestrator
        finally:
            await orchestrator.end()


def script(name: str = "hello", code: str = "app = 1\n", **env: str) -> CreateRequest:
    return CreateRequest(name, {"type": "inline", "code": code}, env)


async def until(orchestrator: Orchestrator, id: str, state: str, principal: Principal = LOCAL_ADMIN) -> DeploymentInfo:
    """The deployment once it is in `state`."""

    async def look() -> DeploymentInfo:
        while (info := await orchestrator.read(id, principal)).state != state:
            await asyncio.wait_for(orchestrator._reconciler.changed(id).wait(), 10)
        return info

    return await asyncio.wait_for(look(), 10)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)

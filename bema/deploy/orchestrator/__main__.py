"""The orchestrator's process: booted like any service, with the literal Init that the keeper gives it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

from bema.core.access import LOCAL_ADMIN
from bema.core.errors import NotFound
from bema.core.settings import Settings
from bema.deploy.build.environments import EnvironmentsFactory
from bema.deploy.build.layers import Layers
from bema.deploy.build.pythons import FoundPythons
from bema.deploy.build.uv import Uv
from bema.deploy.launch.launcher import LauncherFactory
from bema.deploy.launch.launchers import Launchers
from bema.deploy.model.restarts import RestartPolicy
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.orchestrator.seeds import report, sow
from bema.deploy.orchestrator.service import Orchestrator
from bema.deploy.store.deployments import FILE, Store
from bema.deploy.store.released import RELEASED
from bema.runtime.discovery.discovery import Discovery, DiscoveryFactory
from bema.runtime.process.descriptors import raise_limit
from bema.runtime.tasks import Tasks
from bema.sdk.boot import run
from bema.sdk.context import Context
from bema.sdk.decorators import async_init, on_shutdown, service
from bema.sdk.lifecycle import serve
from bema.state.engine import StateFactory


@service(name="orchestrator", namespace="bema")
class PlatformOrchestrator(Orchestrator):
    """The orchestrator with the parts of this machine."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._settings = context.settings
        self._in_force = context.runtime.settings
        self._discovery = context.runtime.discovery
        self._tasks = Tasks("orchestrator")

    @async_init
    async def open(self) -> None:
        parts = await parts_of(self._in_force, self._discovery)
        # the keeper starts it again, and nothing that runs notices
        await self.begin(parts, failed=lambda: os.kill(os.getpid(), signal.SIGTERM))
        self._tasks.start(self._sow(parts.store), "seeds")

    async def _sow(self, store: Store) -> None:
        """Deploy the seeds; what became of each goes to stdout, which the keeper shows on the terminal."""
        seeds = [Path(seed) for seed in self._settings.get("seeds", ())]
        for seed, id in (await sow(seeds, self, store, LOCAL_ADMIN)).items():
            with contextlib.suppress(NotFound):  # it was removed, and stays so
                info = await self.settled(id, LOCAL_ADMIN)
                url = f"{self._settings['gateway_url']}/gateway/{id}"
                told = await asyncio.to_thread(report, seed, info, url, self._settings["program"])
                sys.stdout.write(told + "\n")
                sys.stdout.flush()

    @on_shutdown
    async def close(self) -> None:
        await self._tasks.stop()
        await self.end()


async def parts_of(settings: Settings, discovery: Discovery | None = None) -> Parts:
    """The parts in use, of their factories where there is a choice, as `settings` say.

    Instances are shown in `discovery`; without one, in a discovery that is opened for them.
    """
    state, limits = Path(settings.text("state_dir")), settings.limits
    engine = await StateFactory.choose().open(settings.of(StateFactory.group), FILE, RELEASED)
    store = await Store.open(engine)
    launchers = Launchers(
        lambda name: LauncherFactory.open_waiting(settings, name),
        LauncherFactory.registry.name_in_use(),
        {version.launcher for deployment in store.deployments().values() for version in deployment.versions},
    )
    launchers.meet(DiscoveryFactory.open(settings) if discovery is None else discovery)
    uv = Uv()
    return Parts(
        state=state,
        store=store,
        launcher=launchers,
        environments=await EnvironmentsFactory.open_waiting(settings),
        layers=Layers(state / "layers", uv),
        pythons=FoundPythons(uv),
        policy=RestartPolicy.of(limits),
        limits=limits,
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    raise_limit()
    run(serve(PlatformOrchestrator), platform=True)

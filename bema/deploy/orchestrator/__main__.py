"""The orchestrator's process: booted like any service, with the literal Init that the keeper gives it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bema.core import durable
from bema.core.access import LOCAL_ADMIN
from bema.core.errors import NotFound
from bema.core.settings import Settings
from bema.deploy.build.environments import EnvironmentsFactory
from bema.deploy.build.layers import Layers
from bema.deploy.build.pythons import FoundPythons
from bema.deploy.build.uv import Uv
from bema.deploy.launch.launcher import LauncherFactory
from bema.deploy.launch.launchers import Launchers
from bema.deploy.model.isolation import Isolation
from bema.deploy.model.restarts import RestartPolicy
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.orchestrator.seeds import Sown, left, refused, report, sow, unnamed
from bema.deploy.orchestrator.service import Orchestrator
from bema.deploy.orchestrator.unfinished import DeployedCalls
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
        self._runtime = context.runtime
        self._discovery = context.runtime.discovery
        self._tasks = Tasks("orchestrator")

    @async_init
    async def open(self) -> None:
        told = {name: self._settings[name] for name in (durable.SETTING,) if name in self._settings}
        parts = await parts_of(self._in_force, self._discovery, told)
        gateways = await self._runtime.view("bema", "gateway")
        parts = dataclasses.replace(
            parts,
            calls=await DeployedCalls.open(self._runtime),
            gateways=lambda: frozenset(each.id for each in gateways.instances()),
        )
        # the keeper starts it again, and nothing that runs notices
        await self.begin(parts, failed=lambda: os.kill(os.getpid(), signal.SIGTERM))
        gateways.subscribe(self.gateways)
        # not awaited: the platform is up before its last seed is built
        self._tasks.start(self._sow(parts.store), "seeds")

    async def _sow(self, store: Store) -> None:
        """Deploy the seeds; what became of each goes to stdout, which the keeper shows on the terminal."""
        seeds, program = [Path(seed) for seed in self._settings.get("seeds", ())], self._settings["program"]
        sown = await sow(seeds, self, store, LOCAL_ADMIN)
        for one in sown:
            if one.done == "removed" or (one.said and one.done != "replaced"):
                _tell(refused(one, program))
        for rollout in unnamed(seeds, store) if seeds else ():
            _tell(left(rollout, program))
        # as they come out: one that builds for minutes holds back no other's
        for told in asyncio.as_completed([self._became(one, program) for one in sown if one.id]):
            _tell(await told)

    async def _became(self, one: Sown, program: str) -> str:
        try:
            info = await self.settled(one.id, LOCAL_ADMIN)
        except NotFound:
            return f"{one.name}: removed"
        url = f"{self._settings['gateway_url']}/gateway/{one.id}"
        return await asyncio.to_thread(report, one.seed, info, url, program, one.done)

    @on_shutdown
    async def close(self) -> None:
        await self._tasks.stop()
        await self.end()


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def parts_of(
    settings: Settings, discovery: Discovery | None = None, told: Mapping[str, Any] | None = None
) -> Parts:
    """The parts in use, of their factories where there is a choice, as `settings` say.

    Instances are shown in `discovery`; without one, in a discovery that is opened for them. `told` are settings for each.
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
        isolation=Isolation.of(settings),
        told=told or {},
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    raise_limit()
    run(serve(PlatformOrchestrator), platform=True)

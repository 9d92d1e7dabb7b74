"""Departures: instances that are taken away, from those who send them requests first, then stopped.

Law: one that serves is told to stop once every gateway that is there sends it nothing any more, or its time to drain is over;
who asks for the deployment meanwhile is given the next instance.
"""

from __future__ import annotations

from collections.abc import Iterable

from bema.core.instance import State
from bema.deploy.model.deployment import Rollout
from bema.deploy.model.plan import IDLE
from bema.deploy.model.replica import Replica
from bema.deploy.orchestrator.loads import DeploymentLoads
from bema.deploy.orchestrator.parts import Parts
from bema.runtime.tasks import Tasks


class Departures:
    def __init__(self, parts: Parts, loads: DeploymentLoads, tasks: Tasks) -> None:
        self._parts = parts
        self._loads = loads
        self._tasks = tasks
        self._reasons: dict[int, str] = {}

    async def resume(self, replicas: Iterable[Replica]) -> None:
        """Go on with those that were being taken away when the orchestrator before this one ended."""
        for replica in replicas:
            if replica.state is State.DRAINING and replica.instance not in self._reasons:
                await self.begin(replica, "replaced")

    async def begin(self, replica: Replica, reason: str, *, at_once: bool = False) -> None:
        """Take an instance away; `at_once` where nobody is to be spared."""
        instance = replica.instance
        self._reasons[instance] = reason
        gateways = self._parts.gateways()
        if at_once or not gateways or replica.state not in (State.SERVING, State.DRAINING):
            await self._parts.launcher.stop(instance, self._parts.limits.stop, reason)
            return
        self._loads.are(gateways)
        # not in the task: a look at what the launcher has must not find it serving
        await self._parts.launcher.drain(instance)
        self._tasks.start(self._stop(instance, reason), f"departure of {instance}")

    async def _stop(self, instance: int, reason: str) -> None:
        await self._loads.drained(instance, self._parts.limits.drain)
        await self._parts.launcher.stop(instance, self._parts.limits.stop, reason)

    def end(self, instance: int) -> str:
        """It has gone; gives why it was taken away, empty where it went by itself."""
        return self._reasons.pop(instance, "")


def fell_asleep(rollout: Rollout) -> bool:
    """Whether what was asked for last of a deployment ended since nobody used it."""
    version = rollout.deployment.named(rollout.deployment.rising)
    attempts = () if version is None else rollout.of(version).attempts
    return bool(attempts) and (attempts[-1].cause, attempts[-1].message) == ("stopped", IDLE)

"""What is asked of each deployment, as gateways report it, and what becomes of instances that are taken away.

Laws: it is in memory alone, and what is forgotten is reported anew; of a deployment that sleeps nothing is kept. A gateway that
went has nothing in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence

from bema.core.clock import Clock
from bema.core.instance import State
from bema.deploy.model.deployment import Deployment
from bema.deploy.model.reclaim import Reclaim
from bema.deploy.model.replica import Replica
from bema.deploy.model.restarts import SECOND
from bema.deploy.model.scaling import Loads, Usage, Wish

_LIVE = (State.NEW, State.STARTING, State.SERVING)


class DeploymentLoads:
    """`changed` is told of each deployment of which something else is asked."""

    def __init__(self, clock: Clock, changed: Callable[[str], None]) -> None:
        self._clock = clock
        self._changed = changed
        self._gateways: frozenset[int] = frozenset()
        self._usages: dict[str, Usage] = {}
        self._reclaims: dict[int, Reclaim] = {}
        self._acknowledged = asyncio.Event()

    # what is told

    def take(self, report: Loads) -> None:
        """Take the report of a gateway in."""
        now = self._clock.now()
        for load in report.loads:
            self._usages.setdefault(load.deployment, Usage(now)).told(report.gateway, load, now)
            self._changed(load.deployment)
        for instance in report.drained:
            if (reclaim := self._reclaims.get(instance)) is not None:
                reclaim.acknowledge(report.gateway)
                self._acknowledged.set()

    def used(self, deployment: str) -> None:
        """Somebody asks for it."""
        now = self._clock.now()
        self._usages.setdefault(deployment, Usage(now)).used(now)

    def are(self, gateways: Collection[int]) -> None:
        """These gateways are there, and no others."""
        self._gateways = frozenset(gateways)
        for deployment, usage in self._usages.items():
            if gone := usage.reporters() - self._gateways:
                usage.forget(gone, self._clock.now())
                self._changed(deployment)
        self._acknowledged.set()

    # what follows

    def wish(self, wanted: Deployment, replicas: Sequence[Replica], woken: bool = False) -> Wish:
        """How many replicas the versions that are sent requests are to have together, where there are these.

        `woken` says that somebody asks for it.
        """
        now, deployment, scale = self._clock.now(), wanted.id, wanted.scale
        shares = wanted.shares or {wanted.candidate: 100}
        replicas = [replica for replica in replicas if shares.get(replica.version)]
        if woken:
            self.used(deployment)
        usage = self._usages.get(deployment)
        if usage is None:
            if not replicas:
                return Wish(scale.min)
            usage = self._usages[deployment] = Usage(now)
        live = [replica for replica in replicas if replica.state in _LIVE]
        if any(replica.state is not State.SERVING for replica in live):
            usage.used(now)  # one that has yet to serve has not been idle
        wish = usage.wish(scale, len(live), max((replica.since for replica in live), default=0), now)
        if not wish.replicas and not replicas:
            del self._usages[deployment]
        return wish

    def forget(self, deployment: str) -> None:
        """The deployment is gone."""
        self._usages.pop(deployment, None)

    async def drained(self, instance: int, within: float) -> None:
        """Wait until every gateway has nothing in flight at an instance that is shown as draining, or `within` seconds."""
        reclaim = self._reclaims[instance] = Reclaim(self._clock.now() + round(within * SECOND))
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    while not reclaim.over(self._gateways, self._clock.now()):
                        self._acknowledged.clear()
                        await self._acknowledged.wait()
        finally:
            del self._reclaims[instance]

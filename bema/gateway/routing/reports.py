"""Reports: tells the orchestrator what is in flight and who waits, as far as it changed, and which instances are drained.

Laws: at most one report in a quarter of a second, but at once when somebody begins to wait; nothing is reported of what did not
change, and all of it to an orchestrator that is new. No request waits for a report.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from bema.core.clock import Clock, SystemClock
from bema.core.errors import BemaError
from bema.deploy.model.scaling import Load, Loads
from bema.gateway.routing.activity import Activities
from bema.gateway.routing.admission import RequestAdmission
from bema.gateway.routing.table import RoutingTable

__all__ = ["LoadReports"]

logger = logging.getLogger("bema.gateway")

_PERIOD = 0.25  # seconds
_AGAIN = 1.0  # seconds until what could not be reported is reported again

Tell = Callable[[Loads], Awaitable[object]]


class LoadReports:
    """The reports of one gateway, whose instance id is `gateway`; `tell` brings one to the orchestrator."""

    def __init__(
        self,
        gateway: int,
        table: RoutingTable,
        activities: Activities,
        admission: RequestAdmission,
        tell: Tell,
        clock: Clock | None = None,
    ) -> None:
        self._gateway = gateway
        self._table = table
        self._activities = activities
        self._admission = admission
        self._tell = tell
        self._clock = clock or SystemClock()
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        self._waiting: dict[str, int] = {}  # as it was told
        self._spent: dict[str, int] = {}  # of each deployment, until it was told
        self._drained: list[int] = []
        activities.news = table.leaving = self._news.set
        admission.emptied = self._news.set
        admission.queued = self._queued

    def again(self) -> None:
        """The orchestrator is another: it knows nothing of what was told."""
        self._waiting, self._drained = {}, []
        self._activities.tell_again()
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            self._urgent.clear()
            report = self.report()
            if report.loads or report.drained:
                try:
                    await self._tell(report)
                except BemaError as error:
                    logger.info("what is in flight could not be reported: %s", error.message)
                    self.again()
                    await asyncio.sleep(_AGAIN)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD):
                    await self._urgent.wait()

    def report(self) -> Loads:
        """What has changed since the last report."""
        now, waiting = self._clock.now(), self._admission.lines()
        changed = {activity.deployment: activity for activity in self._activities.take_changed()}
        names = {
            *changed,
            *(name for name in {*waiting, *self._waiting} if waiting.get(name) != self._waiting.get(name)),
        }
        loads = []
        for name in sorted(names):
            activity = changed.get(name) or self._activities.known(name)
            if activity is None:
                loads.append(Load(deployment=name, waiting=waiting.get(name, 0)))
                continue
            spent = activity.busy(now)
            busy = max(0, spent - self._spent.get(name, 0))
            self._spent[name] = spent
            loads.append(
                Load(
                    deployment=name,
                    in_flight=activity.in_flight,
                    waiting=waiting.get(name, 0),
                    busy=busy,
                    last_use=activity.last_access,
                )
            )
        self._waiting = waiting
        drained = self._table.drained()
        told, self._drained = self._drained, drained
        return Loads(gateway=self._gateway, loads=tuple(loads), drained=tuple(drained if drained != told else ()))

    def _queued(self) -> None:
        self._news.set()
        self._urgent.set()

"""The instances whose version has yet to show that it is fit to take requests: each is asked until it is.

Law: nothing here has patience; the plan has it, and stops what was not found fit in time. What was doubted last is then why.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from bema.core.instance import State
from bema.deploy.model.deployment import Version
from bema.deploy.model.plan import UNPROVEN
from bema.deploy.model.replica import Replica
from bema.deploy.orchestrator.fitness import doubt_of
from bema.runtime.tasks import Tasks

_AGAIN = 1.0
"""Seconds between two questions, unless something changes before."""


class Trials:
    """`replica` gives what is known of an instance, `changed` what is set when that changes; `fit` is told who passed: the
    deployment, the label of its version, the instance."""

    def __init__(
        self,
        tasks: Tasks,
        patience: float,
        *,
        replica: Callable[[int], Replica | None],
        changed: Callable[[str], asyncio.Event],
        fit: Callable[[str, str, int], Awaitable[None]],
    ) -> None:
        self._tasks = tasks
        self._patience = patience  # seconds for an answer
        self._replica = replica
        self._changed = changed
        self._fit = fit
        self._running: dict[int, asyncio.Task[None]] = {}
        self._doubts: dict[int, str] = {}  # why an instance is not fit yet
        self._stopped: set[int] = set()  # for that

    def begin(self, replica: Replica, version: Version) -> None:
        """Ask it until it is fit; nothing where that is done already."""
        if replica.instance not in self._running:
            asking = self._ask(replica.deployment, version, replica.instance)
            self._running[replica.instance] = self._tasks.start(asking, f"trial of {replica.label}")

    def failed(self, instance: int) -> None:
        """It is stopped since it was not found fit in time."""
        self._stopped.add(instance)

    def ended(self, instance: int) -> dict[str, str]:
        """It is gone: what that says of its end, as fields of `Attempt`."""
        if (running := self._running.pop(instance, None)) is not None:
            running.cancel()
        doubt = self._doubts.pop(instance, "it was not asked in time")
        if instance not in self._stopped:
            return {}
        self._stopped.discard(instance)
        return {"cause": UNPROVEN, "message": doubt}

    async def _ask(self, id: str, version: Version, instance: int) -> None:
        try:
            while (replica := self._replica(instance)) is not None and replica.state is State.SERVING:
                changed = self._changed(id)
                doubt = await self._doubt(version, replica)
                if not doubt:
                    await self._fit(id, version.label, instance)
                    return
                self._doubts[instance] = doubt
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN):
                        await changed.wait()
        finally:
            self._running.pop(instance, None)

    async def _doubt(self, version: Version, replica: Replica) -> str:
        """Why it is not fit to take requests; empty where it is."""
        if not replica.ready:
            return "it says that it is not ready"
        health = version.settings.health
        return await doubt_of(replica, health, self._patience) if health else ""

"""The operations on secrets: their owner sets, lists and removes them, and what holds one that changed is started anew."""

from __future__ import annotations

import asyncio
import builtins
import contextlib

import msgspec

from bema.core.access import Principal, Scope
from bema.core.instance import State
from bema.core.redaction import hides
from bema.deploy.model.deployment import Rollout, VersionStatus
from bema.deploy.model.replica import Replica
from bema.deploy.orchestrator.acting import acting
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.orchestrator.reconciler import Reconciler
from bema.deploy.secrets import SecretInfo
from bema.runtime.tasks import Tasks
from bema.sdk.decorators import endpoint


class SecretValue(msgspec.Struct, frozen=True):
    """A value on its way to its file."""

    value: str
    __repr__ = hides("value")


class SecretOperations:
    """A part of the orchestrator."""

    _parts: Parts
    _reconciler: Reconciler
    _renewing: Tasks

    @endpoint
    async def put_secret(self, name: str, secret: SecretValue, principal: Principal) -> None:
        """Keep a value under a name of who asks. What was started with another value is started anew after the reply."""
        owner = acting(principal, Scope.WRITE).subject
        if await asyncio.to_thread(self._parts.secrets.put, owner, name, secret.value):
            self._renewing.start(self._renew(owner, name), f"secret {name}")

    @endpoint(idempotent=True)
    async def secrets(self, principal: Principal) -> builtins.list[SecretInfo]:
        return await asyncio.to_thread(self._parts.secrets.all, acting(principal, Scope.READ).subject)

    @endpoint
    async def remove_secret(self, name: str, principal: Principal) -> None:
        """Forget a value; what runs keeps it until its end, and is not started again without it."""
        await asyncio.to_thread(self._parts.secrets.remove, acting(principal, Scope.WRITE).subject, name)

    async def renew_old(self) -> None:
        """What runs with a value from before the last change is started anew: the orchestrator before this one may have died in
        the middle of that."""
        for rollout in list(self._parts.store.rollouts().values()):
            for version in rollout.deployment.versions:
                if asked := frozenset(version.settings.secrets or ()):
                    told = await asyncio.to_thread(self._parts.secrets.all, rollout.owner)
                    changed = max((each.updated for each in told if each.name in asked), default=0)
                    of = [r for r in self._reconciler.instances_of(rollout.id) if r.version == version.label]
                    await self._start_anew(rollout.id, [each for each in of if each.since < changed])

    async def _renew(self, owner: str, name: str) -> None:
        for id in [r.id for r in self._parts.store.rollouts().values() if r.owner == owner and _holders(r, name)]:
            if (rollout := self._parts.store.rollouts().get(id)) is not None:
                holders = _holders(rollout, name)
                await self._start_anew(id, [r for r in self._reconciler.instances_of(id) if r.version in holders])
                await self._forgive(id, name)

    async def _start_anew(self, id: str, replicas: builtins.list[Replica]) -> None:
        """One after the other, so that those of a function do not all go at once."""
        for before in replicas:
            if not await self._started(id, before.instance):
                continue
            await self._reconciler.stop(before.instance, "a secret changed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._parts.limits.stop + self._parts.limits.start):
                    await self._succeeded(id, before.version, before.instance)

    async def _started(self, id: str, instance: int) -> bool:
        """Whether it is there to be stopped, once its launcher has it; one that is new may have been given the value before."""
        while True:
            changed = self._reconciler.changed(id)
            found = next((each for each in self._reconciler.instances_of(id) if each.instance == instance), None)
            if found is None or found.state is not State.NEW:
                return found is not None and found.state in (State.STARTING, State.SERVING)
            await changed.wait()

    async def _succeeded(self, id: str, version: str, instance: int) -> None:
        """Until another instance of the version serves."""
        asked = False
        while id in self._parts.store.rollouts():
            changed = self._reconciler.changed(id)
            found = [each for each in self._reconciler.instances_of(id) if each.version == version]
            if not any(each.instance == instance for each in found):
                if any(each.state is State.SERVING for each in found):
                    return
                if not asked:
                    asked = True
                    # it was stopped, and what was stopped starts for somebody who asks
                    self._reconciler.wake(id)
            await changed.wait()

    async def _forgive(self, id: str, name: str) -> None:
        """What failed for want of the secret is tried again at once."""
        rollout = self._parts.store.rollouts().get(id)
        for label in () if rollout is None else _holders(rollout, name):
            last = rollout.statuses[label].attempts[-1:] if rollout and label in rollout.statuses else ()
            if last and last[0].cause == "secret_missing":
                await self._reconciler.change(id, label, _without_failures)
                self._reconciler.wake(id)


def _without_failures(status: VersionStatus) -> VersionStatus:
    return msgspec.structs.replace(status, attempts=())


def _holders(rollout: Rollout, name: str) -> set[str]:
    """The labels of the versions that are given the secret."""
    return {v.label for v in rollout.deployment.versions if name in (v.settings.secrets or ())}

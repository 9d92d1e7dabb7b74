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

    async def _renew(self, owner: str, name: str) -> None:
        """One instance after the other, so that those of a function do not all go at once."""
        for id in [r.id for r in self._parts.store.rollouts().values() if r.owner == owner and _holders(r, name)]:
            await self._renew_one(id, name)

    async def _renew_one(self, id: str, name: str) -> None:
        for before in self._reconciler.instances_of(id):
            rollout = self._parts.store.rollouts().get(id)
            if rollout is None or before.version not in _holders(rollout, name):
                continue
            if before.state not in (State.STARTING, State.SERVING):
                continue
            await self._reconciler.stop(before.instance, "a secret changed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._parts.limits.stop + self._parts.limits.start):
                    await self._succeeded(id, before.version, before.instance)
        await self._forgive(id, name)

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
                await self._reconciler.change(id, label, VersionStatus.renewed)
                self._reconciler.wake(id)


def _holders(rollout: Rollout, name: str) -> set[str]:
    """The labels of the versions that are given the secret."""
    return {v.label for v in rollout.deployment.versions if name in (v.settings.secrets or ())}

"""What operations on deployments are made of: finding one for who asks, telling of it, and making another version its next.

Law: "not yours" and "not there" look the same.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable

import msgspec

from bema.core.access import Principal
from bema.core.errors import NotFound
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.deployment import Deployment, DeploymentInfo, Rollout, VersionStatus, describe
from bema.deploy.orchestrator.garbage import forget_files
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.orchestrator.reconciler import Reconciler
from bema.deploy.store.records import StoredReply, UnreadableDeployment


class Groundwork:
    """A part of the orchestrator, below those with operations."""

    _parts: Parts
    _reconciler: Reconciler

    def _stored(self, id: str) -> Rollout | UnreadableDeployment | None:
        store = self._parts.store
        return store.rollouts().get(id) or store.unreadable().get(id)

    def _owned(self, id: str, principal: Principal) -> Rollout | UnreadableDeployment:
        # one refusal for both: what is not yours must not be told from what is not there
        found = self._stored(id)
        if found is None or not principal.sees(found.owner):
            raise NotFound(f"there is no deployment {id}")
        return found

    def _readable(self, id: str, principal: Principal) -> Rollout:
        self._owned(id, principal)
        found = self._parts.store.rollouts().get(id)
        if found is None:
            raise NotFound(f"there is no deployment {id} that can be read")
        return found

    def _info(self, stored: Rollout | UnreadableDeployment) -> DeploymentInfo:
        if isinstance(stored, UnreadableDeployment):
            return stored.info()
        replicas = self._reconciler.instances_of(stored.id)
        info = describe(stored, replicas, self._parts.policy, self._reconciler.held(stored.id))
        return msgspec.structs.replace(info, progress=self._reconciler.progress.of(stored.id))

    async def _replace(
        self,
        id: str,
        then: Callable[[Rollout], Rollout],
        bundle: Bundle,
        answer: StoredReply | None = None,
        begins: VersionStatus | None = None,
    ) -> DeploymentInfo:
        """Make a deployment what `then` makes of it, whose newest version is of `bundle` and `begins` with that status."""
        given: builtins.list[DeploymentInfo] = []
        before: set[str] = set()

        def how(rollout: Rollout) -> Deployment:
            before.update(version.digest for version in rollout.deployment.versions)
            after = then(rollout)
            given.append(self._info(after))
            return after.deployment

        async def save(deployment: Deployment) -> None:
            await self._parts.store.update(deployment, bundle, answered(answer, given[-1]), begins)

        # a call that began a moment ago keeps its version, too
        await self._reconciler.calls.look()
        if not await self._reconciler.desire(id, how, save):
            raise NotFound(f"there is no deployment {id}")
        await forget_files(before, self._parts)
        return given[-1]


def answered(answer: StoredReply | None, info: DeploymentInfo) -> StoredReply | None:
    """The reply to store for who asks again with the same key, if there is one."""
    return None if answer is None else msgspec.structs.replace(answer, reply=msgspec.json.encode(info))

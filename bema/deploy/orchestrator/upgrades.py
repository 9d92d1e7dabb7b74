"""The operations on locks: what newer packages there are, and a version that has them.

Laws: an upgrade is a version like any other, of the same files, brought up beside what serves; its lock is stored with it, so
that what was told is what is installed. A lock that comes out the same makes no version.
"""

from __future__ import annotations

import builtins

import msgspec

from bema.core.access import Principal, Scope
from bema.core.errors import Conflict
from bema.deploy.model.deployment import Build, DeploymentInfo, Rollout, VersionStatus
from bema.deploy.model.outdated import OutdatedPackage, UpgradeInfo, outdated
from bema.deploy.orchestrator.acting import acting
from bema.deploy.orchestrator.build import newest_lock, outdated_packages
from bema.deploy.orchestrator.groundwork import Groundwork
from bema.sdk.decorators import endpoint


class UpgradeOperations(Groundwork):
    """A part of the orchestrator."""

    @endpoint(idempotent=True)
    async def outdated(self, id: str, principal: Principal) -> builtins.list[OutdatedPackage]:
        """Packages of the version that is shown for which there are newer ones. It asks the indexes, which may take a while."""
        found = self._readable(id, acting(principal, Scope.READ))
        return await outdated_packages(found, found.deployment.shown, self._parts)

    @endpoint
    async def upgrade(self, id: str, principal: Principal) -> UpgradeInfo:
        """Lock the version that was asked for last anew, and make it with that lock the next version. It asks the indexes.

        `Conflict` where it has no lock yet, or where another version was asked for meanwhile; `Failed` (build_failed) where
        nothing can be locked.
        """
        asks = acting(principal, Scope.WRITE)
        rollout = self._readable(id, asks)
        version, build = rollout.wanted, rollout.of(rollout.wanted).build
        if not build.lock and build.state != "done":
            raise Conflict(
                f"{rollout.name} {version.label} has no lock yet", fix="Wait for its build, or deploy it again."
            )
        newest = build.lock and await newest_lock(rollout, version, self._parts)
        if newest == build.lock:
            return _upgraded(self._info(self._owned(id, asks)), [])
        packages = outdated(build.lock, newest)

        def then(now: Rollout) -> Rollout:
            if now.wanted != version:
                raise Conflict(f"another version of {now.name} was asked for meanwhile", fix="Upgrade that one.")
            at = self._parts.clock.now()
            return now.replaced(msgspec.structs.replace(version, created=at), at, self._reconciler.calls.kept(id))

        bundle = await self._parts.store.bundle(version.digest)
        begins = VersionStatus(build=Build(lock=newest))
        return _upgraded(await self._replace(id, then, bundle, begins=begins), packages)


def _upgraded(info: DeploymentInfo, packages: builtins.list[OutdatedPackage]) -> UpgradeInfo:
    return UpgradeInfo(**{name: getattr(info, name) for name in info.__struct_fields__}, packages=tuple(packages))

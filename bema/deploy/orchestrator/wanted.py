"""What somebody asks to be deployed, as a version: its files fetched once, looked into, and set beside what is there.

Law: what a script says of itself counts less than what was said when it was deployed. What is the same as what is wanted already,
but for what changes in place, makes no version.
"""

from __future__ import annotations

import msgspec

from bema.core.errors import Invalid
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.changes import same_process
from bema.deploy.model.deployment import CreateRequest, Rollout, Version
from bema.deploy.model.env import check_env
from bema.deploy.model.function import FunctionSettings, check_settings
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.sources.inspection import inspect
from bema.deploy.sources.source import source_said


class WantedVersion(msgspec.Struct, frozen=True):
    """A version with its files; its number is given where it is put after others."""

    version: Version
    bundle: Bundle
    in_place: FunctionSettings

    def after(self, rollout: Rollout, *, failed: bool, share: int) -> Rollout:
        """The deployment with this as what is wanted: a new version, or the one that is there."""
        deployment, now = rollout.deployment, self.version.created
        settings = self.in_place.over(deployment.settings)
        if not failed and same_process(rollout.wanted, self.version):
            deployment = msgspec.structs.replace(deployment, settings=settings, updated=now)
            return Rollout(deployment, rollout.statuses)
        then = rollout.replaced(self.version, now, share=share)
        return Rollout(msgspec.structs.replace(then.deployment, settings=settings), then.statuses)


async def wanted_version(request: CreateRequest, old: Rollout | None, parts: Parts) -> WantedVersion:
    """What is asked for, or the error that whoever deploys should see; nothing is stored."""
    check_env(request.env, parts.limits)
    check_settings(request.settings)
    fetched = await source_said(request.source, parts.limits).fetch()
    bundle = fetched.bundle
    found = await inspect(bundle, parts.pythons, parts.limits)
    settings = request.settings.over(found.metadata.settings)
    if settings.health and found.entry.kind == "service":
        raise Invalid("health is a path of what answers HTTP; a service says by itself whether it is ready")
    env = request.env or ({} if old is None else old.wanted.env)
    version = Version(
        number=1,
        digest=bundle.digest,
        entry=found.entry,
        env=env,
        dependencies=found.metadata.dependencies,
        requires_python=found.metadata.requires_python,
        created=parts.clock.now(),
        settings=settings.of_version(),
        source=fetched.origin.pinned,
    )
    return WantedVersion(version, bundle, settings.in_place())

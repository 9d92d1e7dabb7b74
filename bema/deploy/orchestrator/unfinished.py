"""Which versions have durable calls that have not ended: a call stays on the version that it began on, so that is kept, and runs.

Law: what is known is what was told last; who cannot be asked changes nothing. Nobody is asked of a deployment with one version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bema.core.errors import BemaError
from bema.deploy.store.deployments import Store
from bema.jobs.service import Jobs
from bema.runtime.discovery.discovery import View
from bema.runtime.distributed import DistributedRuntime
from bema.sdk.spec import spec_of

LiveVersions = dict[str, dict[str, bool]]

_PATIENCE = 5.0


class VersionCalls(Protocol):
    async def live(self, data: list[str]) -> LiveVersions:
        """The versions whose calls have not ended, by the id of a deployment's data; true where one of them is to go on."""
        ...


class NoVersionCalls:
    """The twin for who has none."""

    async def live(self, data: list[str]) -> LiveVersions:
        return {}


class DeployedCalls:
    """Those that the platform's service has. Where it does not run, none goes on: it is not started to say so."""

    def __init__(self, runtime: DistributedRuntime, view: View) -> None:
        self._view = view
        self._jobs = runtime.client(Jobs, timeout=_PATIENCE)

    @classmethod
    async def open(cls, runtime: DistributedRuntime) -> DeployedCalls:
        spec = spec_of(Jobs)
        return cls(runtime, await runtime.discovery.view(spec.namespace, spec.name))

    async def live(self, data: list[str]) -> LiveVersions:
        return await self._jobs.live_versions(data) if self._view.instances() else {}


class UnfinishedCalls:
    """By deployment; `changed` is told of each for which something changed."""

    def __init__(self, calls: VersionCalls, store: Store, changed: Callable[[str], None]) -> None:
        self._calls = calls
        self._store = store
        self._changed = changed
        self._known: dict[str, dict[str, bool]] = {}

    def going(self, deployment: str) -> frozenset[str]:
        """The labels of versions with calls that are to go on."""
        return frozenset(label for label, going in self._known.get(deployment, {}).items() if going)

    def kept(self, deployment: str) -> frozenset[str]:
        """The labels of versions with calls that have not ended; one that is paused may be told to go on."""
        return frozenset(self._known.get(deployment, ()))

    async def look(self) -> None:
        rollouts = self._store.rollouts().values()
        asked = {self._store.home(one.deployment): one.id for one in rollouts if len(one.deployment.versions) > 1}
        try:
            told = await self._calls.live(list(asked)) if asked else {}
        except BemaError:
            return
        known = {asked[data]: versions for data, versions in told.items() if data in asked and versions}
        before, self._known = self._known, known
        for deployment in before.keys() | known.keys():
            if before.get(deployment) != known.get(deployment):
                self._changed(deployment)

"""What an orchestrator is made of: every part has a twin in memory, and tests put them together as they like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from bema.core.clock import Clock, SystemClock
from bema.core.limits import DEFAULTS, Limits
from bema.deploy.build.environments import Environments
from bema.deploy.build.pythons import Python, Pythons
from bema.deploy.launch.launcher import Launcher
from bema.deploy.model.isolation import Isolation
from bema.deploy.model.restarts import RestartPolicy
from bema.deploy.orchestrator.unfinished import NoVersionCalls, VersionCalls
from bema.deploy.secrets import SecretFiles
from bema.deploy.store.deployments import Store
from bema.deploy.store.keys import KeyRecords


class PlatformLayers(Protocol):
    async def layer(self, python: Python) -> Path:
        """The folder with bema's own part of a script that runs on `python`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    state: Path
    store: Store
    launcher: Launcher
    environments: Environments
    layers: PlatformLayers
    pythons: Pythons
    clock: Clock = field(default_factory=SystemClock)
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    limits: Limits = DEFAULTS
    isolation: Isolation = field(default_factory=Isolation)  # the least of every instance
    calls: VersionCalls = field(default_factory=NoVersionCalls)
    told: Mapping[str, Any] = field(default_factory=dict)  # to every instance, as settings of its Init

    gateways: Callable[[], frozenset[int]] = frozenset  # the ids of those that are there

    @cached_property
    def keys(self) -> KeyRecords:
        return KeyRecords(self.store, self.clock)

    @cached_property
    def secrets(self) -> SecretFiles:
        return SecretFiles(self.state / "secrets", self.limits)

    def logs(self, deployment: str) -> Path:
        return self.state / "logs" / deployment

    def home(self, data: str) -> Path:
        return self.state / "homes" / data

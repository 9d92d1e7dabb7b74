"""What a launcher is given to start: a version made runnable, and nothing of how it becomes a process.

Law: no command line, no path of a socket, no pid. The launcher derives from it what its own kind needs: a command line, a
request to a zygote, or a pod.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bema.core.instance import Terms
from bema.core.limits import DEFAULTS
from bema.core.redaction import hides
from bema.deploy.launch.isolation import InstanceBounds
from bema.deploy.model.deployment import ScriptEntry
from bema.deploy.model.function import FunctionSettings
from bema.deploy.model.isolation import Isolation


class WorkloadEnvironment(msgspec.Struct, frozen=True):
    """What a version was built into: the interpreter to start, and the folder with bema's own part of a script."""

    python: str
    layer: str


class WorkloadLimits(msgspec.Struct, frozen=True):
    """Seconds: until it serves, and for it to finish once it was asked to stop. `bounds` are those of its sandbox."""

    start: float = DEFAULTS.start
    drain: float = DEFAULTS.drain
    bounds: InstanceBounds = InstanceBounds.of(DEFAULTS)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """`launcher` names the launcher of this version; empty for the platform's. `owner` is whose code it is."""

    deployment: str
    name: str
    version: str
    environment: WorkloadEnvironment
    script: str  # the file to run
    entry: ScriptEntry = ScriptEntry()
    env: dict[str, str] = {}
    secrets: dict[str, str] = {}  # variables too, which reach the process through a descriptor and nothing else
    limits: WorkloadLimits = WorkloadLimits()
    settings: dict[str, Any] = {}  # what a service is told beside
    launcher: str = ""
    slot: int = 0  # which of its version's listeners it is to have
    share: int = 100  # what it is shown with: its version's percentage of the requests,
    terms: Terms = Terms()  # and how requests are given to it
    asks: FunctionSettings = FunctionSettings()  # what its author asks of the platform
    owner: str = ""
    home: str = ""  # the folder of what it writes; empty for one of the deployment's own
    isolation: Isolation = Isolation()
    operations: bool = False  # it asks the orchestrator for things, and is given a way to
    __repr__ = hides("env", "secrets")

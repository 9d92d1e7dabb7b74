"""What a start asks for where a zygote may fork it, and how it was started after all.

Law: starts of one owner, in one environment and one sandbox, share a zygote, and no others do: the packages of an environment
run in it, within that sandbox, and what they would do to a start they do to their owner's. It is given no variable of a
deployment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from bema.deploy.launch.sandbox import Home, environment
from bema.deploy.launch.workload import Workload
from bema.deploy.model.isolation import STRICT


def zygote_for(workload: Workload, home: Home, sandbox: dict[str, Any] | None, memory: int) -> dict[str, Any]:
    """The zygote that may fork it, or `why` there is none; `memory` is what all may take together, in bytes.

    `sandbox` is the one of Init. A sandbox is left by nothing, so a zygote in it serves those alone that are to be in it.
    """
    if sandbox is not None and sandbox["kind"] == STRICT:
        return {"why": "its isolation is strict"}
    # an environment lies where its content says, so where it lies says what is in it
    shared = (workload.owner, workload.environment.python, workload.environment.layer, sandbox)
    key = hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]
    return {"key": key, "env": environment(home, {}), "memory": memory, "sandbox": sandbox and _of_zygote(sandbox)}


def _of_zygote(sandbox: dict[str, Any]) -> dict[str, Any]:
    """All of it but what is counted for each instance, which has that from its own start on."""
    limits = {name: most for name, most in sandbox["limits"].items() if name not in ("files", "processes")}
    return {**sandbox, "limits": limits}


def with_start(announce: Mapping[str, Any], start: Mapping[str, str] | None) -> dict[str, Any]:
    """An announcement with how its instance was started: `kind` is `zygote` or `exec`, `why` says why not by a zygote."""
    return {**announce, "start": dict(start)} if start else dict(announce)

"""The two steps between a stored version and a process: build it once, then say how to start it.

Law: building may take minutes and use the network; what leads to a start uses neither.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bema.core.errors import BemaError, Failed
from bema.core.limits import Limits
from bema.deploy.build.environments import Wanted
from bema.deploy.build.progress import Told, unheard
from bema.deploy.build.pythons import Python
from bema.deploy.launch.isolation import InstanceBounds
from bema.deploy.launch.workload import Workload, WorkloadEnvironment, WorkloadLimits
from bema.deploy.model.deployment import Build, Rollout, Version, fault_of
from bema.deploy.model.env import check_env
from bema.deploy.model.function import FunctionSettings
from bema.deploy.model.isolation import Isolation
from bema.deploy.model.outdated import OutdatedPackage, outdated
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.sources.project import requirements_of


class BuildProgress:
    """What the build of each deployment does just now; `changed` is told of which it is another thing."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._steps: dict[str, str] = {}

    def of(self, deployment: str) -> str:
        """Empty where nothing is built."""
        return self._steps.get(deployment, "")

    def told(self, deployment: str) -> Told:
        """Who its build tells."""

        def tell(step: str) -> None:
            self._steps[deployment] = step
            self._changed(deployment)

        return tell

    def over(self, deployment: str) -> None:
        self._steps.pop(deployment, None)


async def build(rollout: Rollout, version: Version, parts: Parts, told: Told = unheard) -> Build:
    """The build of a version, done or failed. `told` is told what it does meanwhile."""
    lock = rollout.of(version).build.lock
    try:
        wanted = await _wanted(version, lock, parts)
        python = wanted.python
        made = await parts.environments.make(wanted, told)
        begun = time.monotonic()
        await parts.layers.layer(python)
    # the lock of an earlier build is kept: the next attempt installs what was promised, whatever an
    # index has by then
    except BemaError as error:
        return Build(state="failed", lock=lock, fault=fault_of(error))
    except OSError as error:
        failed = Failed(f"the environment cannot be made: {error}", code="build_failed")
        return Build(state="failed", lock=lock, fault=fault_of(failed))
    return Build(
        state="done",
        key=made.key,
        python=made.python,
        release=python.release,
        lock=made.lock,
        phases={**made.phases, "layer": round((time.monotonic() - begun) * 1000)},
    )


async def _wanted(version: Version, lock: str, parts: Parts) -> Wanted:
    bundle = await parts.store.bundle(version.digest)
    python = await parts.pythons.choose(version.requires_python)
    # no limit but its own length: a limit that was lowered since is for scripts to come
    asked = await asyncio.to_thread(requirements_of, bundle, len(bundle.encoded))
    return Wanted(asked.code, version.dependencies, python, lock or asked.lock, asked.metadata.options)


async def outdated_packages(rollout: Rollout, version: Version, parts: Parts) -> list[OutdatedPackage]:
    """What a lock made now would change; nothing of a version that was not locked yet."""
    lock = rollout.of(version).build.lock
    if not lock:
        return []
    return outdated(lock, await newest_lock(rollout, version, parts))


async def newest_lock(rollout: Rollout, version: Version, parts: Parts) -> str:
    """What a lock of a version would be now; `Failed` (build_failed) where nothing can be locked."""
    return await parts.environments.newest_lock(await _wanted(version, rollout.of(version).build.lock, parts))


async def is_there(build: Build) -> bool:
    """Whether what was built is still where it was; it can be made again from its lock."""
    return await asyncio.to_thread(os.access, build.python, os.X_OK)


async def workload_of(rollout: Rollout, version: Version, slot: int, parts: Parts) -> Workload:
    """A version as a launcher is given it, its code in a file."""
    deployment, build = rollout.deployment, rollout.of(version).build
    # again: it may have been stored before there was a limit, and would fail in the keeper's hands
    check_env(version.env, parts.limits)
    # by the interpreter that it was built for: another may be the one to choose by now
    layer = await parts.layers.layer(Python(build.python, build.release))
    folder = parts.state / "versions" / version.digest
    script = folder / version.entry.file
    if not await asyncio.to_thread(script.exists):
        await asyncio.to_thread((await parts.store.bundle(version.digest)).place, folder)
    home = parts.store.home(deployment) or deployment.id
    return Workload(
        deployment=deployment.id,
        name=deployment.name,
        version=version.label,
        environment=WorkloadEnvironment(build.python, str(layer)),
        script=str(script),
        entry=version.entry,
        env={**parts.limits.variables(), **version.env},
        secrets=await asyncio.to_thread(parts.secrets.values, deployment.owner, version.settings.secrets or ()),
        limits=WorkloadLimits(parts.limits.start, parts.limits.drain, _bounds(version.settings, parts.limits)),
        isolation=Isolation.asked_by(version.settings).above(parts.isolation),
        launcher=version.launcher,
        slot=slot,
        share=deployment.share_of(version),
        terms=deployment.terms,
        asks=deployment.settings.over(version.settings),
        owner=deployment.owner,
        home=home,
        settings={
            name: await asyncio.to_thread(_told, name, told, home, parts.state) for name, told in parts.told.items()
        },
    )


def _bounds(settings: FunctionSettings, limits: Limits) -> InstanceBounds:
    bounds = InstanceBounds.of(limits)
    return msgspec.structs.replace(bounds, memory=settings.memory or bounds.memory)


def _told(name: str, told: Mapping[str, Any], home: str, state: Path) -> dict[str, Any]:
    """What an extension is told beside: whose data it is, where that is kept, and whether something is."""
    folder = state / "homes" / home / name
    return {**told, "data": home, "kept": any(folder.glob("*.sqlite")), "folder": str(folder)}

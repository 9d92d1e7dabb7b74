"""What no deployment needs any more: old versions, layers and environments.

Law: swept is only when nothing ran at the start, so nothing is taken from under a process; what was used within the week
stays, since it is likely to be wanted again. What was never finished runs nowhere and goes at every start, however young. Whatever
goes wrong here costs disk space and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from pathlib import Path

from bema.core.naming import is_uuid
from bema.deploy.build.folders import remove_unfinished
from bema.deploy.orchestrator.parts import Parts

_WEEK = 7 * 24 * 3600


def left_over(parts: Parts) -> set[str]:
    """Deployments that were deleted and not yet forgotten when an earlier orchestrator ended."""
    known = {*parts.store.rollouts(), *parts.store.unreadable()}
    # a folder that a record names is kept on purpose; a log outlives its deployment by accident
    kept = {data.id for data in parts.store.data()}
    logs, homes = ({path.name for path in (parts.state / name).glob("*")} for name in ("logs", "homes"))
    return {name for name in logs | (homes - kept) if is_uuid(name)} - known


def sweep_unfinished(parts: Parts) -> list[Path]:
    """Remove what builds left that were killed; gives what went. What is being built stays."""
    layers = remove_unfinished(parts.state / "layers", marked=False)
    return layers + remove_unfinished(parts.state / "environments")


def sweep(parts: Parts, age: float = _WEEK) -> list[Path]:
    """Remove what is not wanted and older than `age` seconds; gives what went."""
    rollouts = parts.store.rollouts().values()
    wanted = {version.digest for rollout in rollouts for version in rollout.deployment.versions}
    wanted |= {status.build.key for rollout in rollouts for status in rollout.statuses.values()}
    folders = [path for name in ("versions", "environments", "layers") for path in (parts.state / name).glob("*")]
    before = time.time() - age
    # by the stem: the lock of an environment goes with it
    gone = [path for path in folders if path.stem not in wanted and _changed(path) < before]
    for path in gone:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
    return gone


async def forget_files(digests: set[str], parts: Parts) -> None:
    """Remove the files of versions that were forgotten, where no other version has the same."""
    used = {v.digest for rollout in parts.store.rollouts().values() for v in rollout.deployment.versions}
    for digest in digests - used:
        await asyncio.to_thread(shutil.rmtree, parts.state / "versions" / digest, ignore_errors=True)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()

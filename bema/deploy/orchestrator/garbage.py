"""What no deployment needs any more: old versions, layers and environments.

Law: nothing is taken from under a process. Everything is swept when nothing ran at the start; while the platform is up, only
what was not wanted at the look before either, a day ago: whatever ran on it has drained since. What was made within the week
stays, since it is likely to be wanted again. What was never finished runs nowhere and goes at every start, however young. Whatever
goes wrong here costs disk space and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from bema.core.naming import is_uuid
from bema.deploy.build.folders import remove_unfinished
from bema.deploy.orchestrator.parts import Parts

_DAY = 24 * 3600.0
_WEEK = 7 * _DAY


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
    gone = [*_unwanted(parts, ("versions", "environments", "layers"), age)]
    for path in gone:
        _remove(path)
    return gone


async def collect(parts: Parts) -> None:
    """Look once a day, as long as the platform is up."""
    unwanted: set[Path] = set()
    while True:
        await asyncio.sleep(_DAY)
        unwanted, _ = await asyncio.to_thread(sweep_while_up, parts, unwanted)


def sweep_while_up(parts: Parts, before: Collection[Path], age: float = _WEEK) -> tuple[set[Path], list[Path]]:
    """Remove what is not wanted and was not `before`; gives what stays unwanted for the next look, and what went.

    A platform layer is nobody's by name, so it stays: what runs may have been started on it long ago.
    """
    found = _unwanted(parts, ("versions", "environments"), age)
    gone = []
    for path in [path for path in found if path in before]:
        # asked once more: removing takes a while, and a deployment may want it meanwhile
        if path.stem not in _wanted(parts):
            _remove(path)
            gone.append(path)
    return found - {*gone}, gone


def _unwanted(parts: Parts, names: Iterable[str], age: float) -> set[Path]:
    """What no version needs and is older than `age` seconds."""
    wanted, before = _wanted(parts), time.time() - age
    folders = [path for name in names for path in (parts.state / name).glob("*")]
    # by the stem: the lock of an environment goes with it
    return {path for path in folders if path.stem not in wanted and _changed(path) < before}


def _wanted(parts: Parts) -> set[str]:
    rollouts = list(parts.store.rollouts().values())
    wanted = {version.digest for rollout in rollouts for version in rollout.deployment.versions}
    return wanted | {status.build.key for rollout in rollouts for status in rollout.statuses.values()}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


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

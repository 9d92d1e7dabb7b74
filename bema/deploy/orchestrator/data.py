"""What functions wrote: the folder that is the HOME of a name's functions, one after the other.

Laws: it belongs to an owner and a name, so a deployment that is removed leaves it to the next one; it goes only when
somebody purges it, or when nothing was written there. A record is taken away before its folder: what is cut short in
between is a folder that nobody knows, which the next start removes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bema.core.access import Principal
from bema.core.errors import BemaError
from bema.deploy.model.deployment import DataInfo
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.store.records import DataFolder

_MOST = 100_000
"""Files that are counted of one folder: who asks for a list should not wait for millions."""


async def listed(principal: Principal, parts: Parts, name: str = "", *, kept: bool = False) -> list[DataInfo]:
    """The folders with something in them that are there for `principal`; of one name, or only those nobody has."""
    found = [
        data
        for data in sorted(_known(parts), key=lambda d: (d.name, d.owner))
        if principal.sees(data.owner) and name in ("", data.name) and not (kept and parts.store.in_use(data))
    ]
    told = [await info(data, parts) for data in found]
    return [each for each in told if each.files]


async def info(data: DataFolder, parts: Parts) -> DataInfo:
    files, size = await asyncio.to_thread(_size, parts.home(data.id))
    return DataInfo(
        id=data.id,
        name=data.name,
        owner=data.owner,
        deployment=parts.store.in_use(data),
        kept=data.kept,
        files=files,
        bytes=size,
    )


async def leave(id: str, parts: Parts) -> None:
    """The deployment that had the folder is gone: it goes too where it was purged, or holds nothing."""
    known = next((data for data in parts.store.data() if data.id == id), None)
    home = parts.home(id)
    if known is None:
        if parts.store.knows_all_data:
            await remove(id, parts)
        return
    if parts.store.in_use(known):
        return
    # temporary by its name: the next deployment finds none of it
    await asyncio.to_thread(shutil.rmtree, home / "tmp", ignore_errors=True)
    if not await asyncio.to_thread(_holds_something, home):
        try:
            await parts.store.purge(known)
        except BemaError:  # somebody took it meanwhile, or it cannot be written down: then it stays
            return
        await remove(id, parts)


async def remove(id: str, parts: Parts) -> None:
    await asyncio.to_thread(shutil.rmtree, parts.home(id), ignore_errors=True)


def _known(parts: Parts) -> Iterator[DataFolder]:
    """What there are records of, and the folders of deployments from before there were any."""
    yield from (recorded := parts.store.data())
    named = {(data.owner, data.name) for data in recorded}
    for rollout in parts.store.rollouts().values():
        if (rollout.owner, rollout.name) not in named:
            yield DataFolder(rollout.id, rollout.name, rollout.owner)


def _size(folder: Path) -> tuple[int, int]:
    """How many files lie in the HOME, and their bytes; of very many, those that were counted."""
    files = size = 0
    for each in itertools.islice(_sizes(folder), _MOST):
        files, size = files + 1, size + each
    return files, size


def _holds_something(folder: Path) -> bool:
    if next(_sizes(folder), None) is not None:
        return True
    # beside the HOME lies what the platform keeps for it, such as durable calls
    return folder.exists() and any(each.name not in ("home", "tmp") for each in folder.iterdir())


def _sizes(folder: Path) -> Iterator[int]:
    """The bytes of each file; of a link its own, and 0 of what cannot be looked at: it may hold anything."""
    closed: list[OSError] = []
    for place, folders, names in os.walk(folder / "home", onerror=closed.append):
        for name in (*names, *(each for each in folders if (Path(place) / each).is_symlink())):
            try:
                yield (Path(place) / name).lstat().st_size
            except OSError:
                yield 0
    # a folder that cannot be read is no empty one: counting it as nothing would delete it
    yield from (0 for error in closed if not isinstance(error, FileNotFoundError))

"""Folders that are made once and shared: who makes one, whether it is whole, and what is left of those that are not.

Laws: a folder counts with its marker, which is written last. Its maker holds a lock, which the kernel releases on any death and
which is inherited by what works for the maker: as long as it is held, nobody else makes there, or removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

MARKER = ".complete"
WORK = ".lock-"
"""What the name of a folder begins with in which something is made, and which goes with that."""
_FICLONE = 0x40049409  # linux/fs.h


def is_complete(place: Path) -> bool:
    return (place / MARKER).exists()


@contextlib.asynccontextmanager
async def exclusive(path: Path, pause: float = 0.02) -> AsyncIterator[int]:
    """Hold the file lock `path`, whoever else on this machine wants it; gives its descriptor."""
    # the file stays: were it removed, who waits for it and who makes it anew would both hold a lock
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # not waited for: that holds a thread, for minutes where packages are compiled
        while not _locks(descriptor):  # noqa: ASYNC110 - another process holds it
            await asyncio.sleep(pause)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def working(folder: Path) -> AsyncIterator[tuple[Path, int]]:
    """A new folder in `folder` to make something in, and its descriptor: while anybody has that, the folder is in use."""
    place, descriptor = _new(folder)
    try:
        yield place, descriptor
    finally:
        os.close(descriptor)
        # a thread: what a build left in its HOME may be more than a turn of the loop removes
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)


def _new(folder: Path) -> tuple[Path, int]:
    while True:
        place = Path(tempfile.mkdtemp(prefix=WORK, dir=folder))
        # who sweeps may have come in between, and taken it for left over
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            if _locks(descriptor) and place.exists():
                return place, descriptor
            os.close(descriptor)


def remove_unfinished(folder: Path, *, marked: bool = True) -> list[Path]:
    """Remove what makers left here that were killed; gives what went. What is being made stays.

    Where what is whole bears no marker, because it was renamed to where it is, only their working folders are looked at.
    """
    inside = [path for path in folder.glob("*") if path.is_dir()]
    # nobody runs in one of these: a start comes after the marker
    half = [path for path in inside if path.name.startswith(WORK) or (marked and not is_complete(path))]
    return [
        path for path in half if _removed(path, path if path.name.startswith(WORK) else folder / f"{path.name}.lock")
    ]


def _removed(path: Path, lock: Path) -> bool:
    # a working folder is its own lock; that of an environment is beside it, which is made anew
    how = os.O_RDONLY if lock == path else os.O_RDWR | os.O_CREAT
    try:
        descriptor = os.open(lock, how | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        # asked again when it is ours: whoever had it may have come to the end
        if not _locks(descriptor) or is_complete(path):
            return False
        shutil.rmtree(path, ignore_errors=True)
        return True
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def link_mode(folder: Path) -> str:
    """`clone` where the file system can share blocks copy-on-write, else `copy`.

    uv itself would fall back from clone to hard links.
    """
    with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as target:
        source.write(b"x")
        source.flush()
        try:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
        except OSError:
            return "copy"
    return "clone"


def complete(place: Path) -> None:
    """Write the marker when everything before it is on disk."""
    # thousands of small files: one sync of everything is cheaper than one of each
    os.sync()
    (place / MARKER).touch()

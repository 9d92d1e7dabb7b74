"""What an instance has written to its own folders, looked at now and then: no kernel bounds a folder without root.

Law: a file counts with what it takes of the disk, an empty one with a block, so that their number is bounded too. Between two
looks an instance may pass its quota by what it writes meanwhile; a single file never does, which the kernel keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

EVERY = 5.0  # seconds
_SHARE = 100  # times as long as a look took until the next: a large folder costs a hundredth of a processor
_BLOCK = 512  # bytes, of which `st_blocks` are (stat(2))
_LEAST = 4096


async def passed(folders: Iterable[Path], most: int, every: float) -> None:
    """Return as soon as there are more than `most` bytes in the folders."""
    looked_in, loop = tuple(folders), asyncio.get_running_loop()
    while True:
        began = loop.time()
        if await asyncio.to_thread(used, looked_in, most) > most:
            return
        await asyncio.sleep(max(every, _SHARE * (loop.time() - began)))


def used(folders: Iterable[Path], most: int) -> int:
    """The bytes of disk in the folders, links not followed; no more is looked at once there are more than `most`.

    A folder that cannot be looked into counts as more than `most`: else it would be where to hide.
    """
    found, left = 0, [os.fspath(folder) for folder in folders]
    seen: set[int] = set()
    while left and found <= most:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    # whoever writes there may take away, meanwhile, what was listed
                    with contextlib.suppress(FileNotFoundError):
                        found += _counted(entry, left, seen)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return most + 1
    return found


def _counted(entry: os.DirEntry[str], left: list[str], seen: set[int]) -> int:
    status = entry.stat(follow_symlinks=False)
    if entry.is_dir(follow_symlinks=False):
        left.append(entry.path)
    elif status.st_nlink > 1:  # under several names, and there once
        if status.st_ino in seen:
            return _LEAST
        seen.add(status.st_ino)
    return max(_LEAST, status.st_blocks * _BLOCK)

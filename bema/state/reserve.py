"""Reserve: disk space that is set aside, so that what takes something away works where nothing can be added.

A log that is written ahead needs room for a deletion, too: without it, what fills a disk could not be removed from it. Law:
only work that takes away more than it adds is done in this space, and it is set aside again as soon as there is some.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

NAME = "reserve"
SIZE = 2 * 1024 * 1024
"""Bytes: a deletion writes some pages of 4 KiB, and what was written ahead before it needs room in its file."""


class Reserve:
    """One file for all files of a folder, of `most` bytes. A folder that takes none has none."""

    def __init__(self, folder: Path, most: int = SIZE) -> None:
        self._path = folder / NAME
        self._most = most
        self.short = True  # less than `most` is set aside

    def fill(self) -> None:
        """Set aside what there is room for, up to `most` bytes."""
        have = self._size()
        with contextlib.suppress(OSError):
            disk = os.statvfs(self._path.parent)
            size = min(self._most, have + disk.f_bavail * disk.f_frsize)
            if size > have and self._filled(size):
                have = size
        self.short = have < self._most

    def release(self) -> bool:
        """Give the space back to the disk; False where none was set aside."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def _filled(self, size: int) -> bool:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            # real blocks: a file of holes would set nothing aside
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            self.release()
            return False
        finally:
            os.close(descriptor)
        return True

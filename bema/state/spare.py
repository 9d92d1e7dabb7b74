"""Room that is set aside beside a store, so that what frees room can be written when the disk is full."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# a deletion writes some pages of 4 KiB to the log of writes before it frees any
SIZE = 256 * 1024


class Spare:
    """A file that is there for its size alone."""

    def __init__(self, store: Path) -> None:
        self._path = store.with_name(f"{store.name}.spare")

    def keep(self) -> None:
        """Set the room aside, if there is any."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            # real blocks: a file that is only long takes none, and gives none back
            os.posix_fallocate(descriptor, 0, SIZE)
        except OSError:
            self.give()
        finally:
            os.close(descriptor)

    def give(self) -> None:
        """Let the disk have it."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

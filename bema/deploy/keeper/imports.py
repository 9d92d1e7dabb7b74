"""What an instance says that it has imported: a file in memory that it writes and we read, of a size that it cannot change."""

from __future__ import annotations

import fcntl
import os
import re

NAME = "imports_fd"  # as Init calls it
_SIZE = 256 * 1024
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z")


class Imports:
    def __init__(self) -> None:
        """`OSError` when there is no descriptor left."""
        self.descriptor = os.memfd_create("imports", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, _SIZE)
        # what an instance could make larger would be our memory
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)

    def names(self) -> list[str]:
        """In the order of their import; whatever is no name of a module is left out."""
        text = os.pread(self.descriptor, _SIZE, 0).partition(b"\0")[0].decode("utf-8", "replace")
        return [name for name in text.split("\n") if _MODULE.match(name)]

    def close(self) -> None:
        os.close(self.descriptor)

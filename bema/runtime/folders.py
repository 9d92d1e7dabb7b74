"""Private folders: where records, sockets and state lie, writable by one user alone.

Law: a folder that another user owns is refused, never taken over. Callers prepare a folder before each first use, since
the system clears temporary folders.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bema.core.errors import Refused


def prepare(directory: Path) -> None:
    """Make the folder with the mode 0700.

    Raises:
        Refused: it cannot be made or written, or belongs to somebody else (code `state_unwritable`).
    """
    try:
        _make(directory)
        # `lstat`: a symbolic link in a shared temporary folder could lead anywhere. The parent may be root's, as /tmp is.
        for folder, owners in ((directory, {os.getuid()}), (directory.parent, {os.getuid(), 0})):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners:
                raise Refused(f"{folder} is not a folder of yours", code="state_unwritable")
        if stat.S_IMODE(directory.lstat().st_mode) & 0o077:
            directory.chmod(0o700)
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise Refused(f"{directory} cannot be written", code="state_unwritable")
    except OSError as error:
        raise Refused(f"{directory} cannot be made: {error.strerror}", code="state_unwritable") from error


def _make(directory: Path) -> None:
    if not directory.parent.exists():
        _make(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)

"""Private folders: where records, sockets and state lie, writable by one user alone.

Laws: a folder that another user owns is refused, never taken over, and a link to one is as much: who may change the link
may change where it leads, so it counts by its own owner too. Callers prepare a folder before each first use, since the
system clears temporary folders.
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
    look(directory)
    try:
        _make(directory)
        look(directory)
        if stat.S_IMODE(directory.stat().st_mode) & 0o077:
            directory.chmod(0o700)
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise Refused(f"{directory} cannot be written", code="state_unwritable")
    except OSError as error:
        raise Refused(f"{directory} cannot be made: {error.strerror}", code="state_unwritable") from error


def look(directory: Path) -> None:
    """Refuse, without making anything, what is there and cannot be a private folder of ours.

    Raises:
        Refused: it, or what it lies in, is something else or somebody else's (code `state_unwritable`).
    """
    try:
        # the parent may be root's, as /tmp is
        _check(directory, {os.getuid()})
        _check(directory.parent, {os.getuid(), 0})
    except NotADirectoryError as error:
        there = next(place for place in directory.parents if place.exists())
        raise Refused(f"{directory} cannot be made: {there} is no folder", code="state_unwritable") from error
    except OSError as error:
        raise Refused(f"{directory} cannot be looked at: {error.strerror}", code="state_unwritable") from error


def _check(folder: Path, owners: set[int]) -> None:
    try:
        itself = folder.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(itself.st_mode):
        if itself.st_uid not in {*owners, 0}:
            raise Refused(f"{folder} is a link that is not yours", code="state_unwritable")
        target = folder.resolve()
        if not target.exists():
            raise Refused(f"{folder} is a link to {target}, which is not there", code="state_unwritable")
        # whoever owns what it lies in could put another there
        _check_owner(target.parent, {*owners, 0})
        folder = target
    if not stat.S_ISDIR(folder.stat().st_mode):
        raise Refused(f"{folder} is a file, not a folder", code="state_unwritable")
    _check_owner(folder, owners)


def _check_owner(folder: Path, owners: set[int]) -> None:
    if folder.stat().st_uid not in owners:
        raise Refused(f"{folder} is not a folder of yours", code="state_unwritable")


def _make(directory: Path) -> None:
    if not directory.parent.exists():
        _make(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)

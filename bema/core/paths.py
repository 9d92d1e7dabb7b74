"""Paths: the names of the folders that bema uses. Nothing here makes a folder.

State: `$BEMA_STATE_DIR`, else the nearest `.bema` on which a platform runs, else `$XDG_STATE_HOME/bema`, else
`~/.local/state/bema`.
Runtime files: `run` in the state directory where one of the first two names it, else `$XDG_RUNTIME_DIR/bema`, else a
per-user folder of the temporary directory.

Law: with an environment given, the answer depends on it alone. Without one, the environment and the working directory of
this process count, so that a command in a checkout finds the platform that `dev.py up` runs there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL among them
SOCKET_PATH_MAX = 100
_LONGEST_SOCKET = len("/s/0123456789abc01234567.sock")

VARIABLE = "BEMA_STATE_DIR"
FOLDER = ".bema"
"""The state directory that `dev.py up` takes in its checkout."""

_KEEPER = b"/deploy/keeper/__main__.py"


def state_dir(env: Mapping[str, str] | None = None) -> Path:
    """The folder of all that outlives a restart: store, token, versions, environments, logs."""
    given = os.environ if env is None else env
    if chosen := given.get(VARIABLE):
        return Path(chosen).expanduser().absolute()
    if env is None and (found := nearby()):
        return found
    if home := given.get("XDG_STATE_HOME"):
        return Path(home).absolute() / "bema"
    return Path(given.get("HOME") or "~").expanduser().absolute() / ".local" / "state" / "bema"


def run_dir(env: Mapping[str, str] | None = None) -> Path:
    """The folder of all that lives as long as processes do: discovery records (`d/`) and sockets (`s/`)."""
    given = os.environ if env is None else env
    if given.get(VARIABLE) or (env is None and nearby()):
        return state_dir(env) / "run"
    if runtime := given.get("XDG_RUNTIME_DIR"):
        return Path(runtime).absolute() / "bema"
    return _temporary(given) / f"bema-{os.getuid()}"


def nearby() -> Path | None:
    """The `.bema` of the working directory, or of the nearest folder above it, on which a platform runs.

    None where `BEMA_STATE_DIR` is set, even to nothing. A process keeps the folder that it found first, so that all its
    files lie in one place.
    """
    if VARIABLE in os.environ or os.name != "posix":
        return None
    try:
        return _nearest(Path.cwd())
    except FileNotFoundError:  # the working directory was removed
        return None


@functools.cache
def _nearest(folder: Path) -> Path | None:
    return next((state for place in (folder, *folder.parents) if _is_ours_and_up(state := place / FOLDER)), None)


def _is_ours_and_up(state: Path) -> bool:
    """Whether a keeper runs on this folder. A folder of another user, or one that others may write, is never trusted."""
    with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
        # a link counts by its own owner too: who may change it may change where it leads
        found = state.stat()
        if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
            return False
        if {state.lstat().st_uid, found.st_uid} != {os.getuid()}:
            return False
        up = msgspec.json.decode((state / "up.json").read_bytes(), type=_Up)
        # a pid alone may be another process's by now
        command = Path(f"/proc/{up.pid}/cmdline").read_bytes().split(b"\0")
        return up.state == str(state) and any(word.endswith(_KEEPER) for word in command)
    return False


class _Up(msgspec.Struct):
    """The fields of up.json that are read here."""

    pid: int
    state: str


def discovery_dir(env: Mapping[str, str] | None = None) -> Path:
    return run_dir(env) / "d"


def socket_dir(env: Mapping[str, str] | None = None) -> Path:
    """A folder whose paths fit into a Unix socket's address, however deep the runtime folder lies."""
    direct = run_dir(env) / "s"
    if len(os.fsencode(direct)) + _LONGEST_SOCKET <= SOCKET_PATH_MAX:
        return direct
    # the same for every process that is told the same folder: they meet there
    digest = hashlib.sha256(os.fsencode(direct)).hexdigest()[:12]
    return _temporary(os.environ if env is None else env) / f"bema-{os.getuid()}" / digest


def _temporary(env: Mapping[str, str]) -> Path:
    # what `tempfile` would say, without the milliseconds of importing it
    return Path(env.get("TMPDIR") or env.get("TEMP") or "/tmp")

"""Where things lie. Pure: names only; who creates a folder checks it.

State: `$BEMA_STATE_DIR`, else `$XDG_STATE_HOME/bema`, else `~/.local/state/bema`.
Runtime files: `$BEMA_STATE_DIR/run`, else `$XDG_RUNTIME_DIR/bema`, else a per-user folder of the temporary directory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL among them
SOCKET_PATH_MAX = 100
STATE_VARIABLE = "BEMA_STATE_DIR"
"""Names a folder, though it looks as if it chose a part of the kind `bema.state`."""
_LONGEST_SOCKET = len("/s/0123456789abc.sock")


def state_dir(env: Mapping[str, str] = os.environ) -> Path:
    """What must outlive a restart: store, token, versions, environments, logs."""
    if chosen := env.get(STATE_VARIABLE):
        return Path(chosen).expanduser().absolute()
    if home := env.get("XDG_STATE_HOME"):
        return Path(home).absolute() / "bema"
    return Path(env.get("HOME") or "~").expanduser().absolute() / ".local" / "state" / "bema"


def run_dir(env: Mapping[str, str] = os.environ) -> Path:
    """What lives while processes live: discovery records (`d/`) and sockets."""
    if env.get(STATE_VARIABLE):
        return state_dir(env) / "run"
    if runtime := env.get("XDG_RUNTIME_DIR"):
        return Path(runtime).absolute() / "bema"
    return _temporary(env) / f"bema-{os.getuid()}"


def discovery_dir(env: Mapping[str, str] = os.environ) -> Path:
    return run_dir(env) / "d"


def socket_dir(env: Mapping[str, str] = os.environ) -> Path:
    """A folder whose socket paths fit into a socket address, however deep the runtime folder lies."""
    direct = run_dir(env) / "s"
    if len(os.fsencode(direct)) + _LONGEST_SOCKET <= SOCKET_PATH_MAX:
        return direct
    digest = hashlib.sha256(os.fsencode(direct)).hexdigest()[:12]
    return _temporary(env) / f"bema-{os.getuid()}" / digest


def _temporary(env: Mapping[str, str]) -> Path:
    # what `tempfile` would say, without the milliseconds of importing it
    return Path(env.get("TMPDIR") or env.get("TEMP") or "/tmp")

"""What a script finds around it: environment, descriptors, `sys.argv` and `sys.path`, as if it had been run by itself."""

from __future__ import annotations

import json
import os
import site
import sys
from pathlib import Path
from typing import Any

from .listeners import free_port

PASSED = ("listen_fd", "lease_fd", "operations_fd", "inspection_fd", "imports_fd")  # as Init names what is inherited
_AGAIN = "BEMA_SCRIPT"  # for a reloader, which starts its own command line again


def prepare(init: dict[str, Any]) -> int:
    """Make them; returns the port that is in `PORT`, which a program should use."""
    os.environ.update(init.get("env") or {})
    # taken out: what is run again has them in its environment
    if (secrets := init.pop("secrets_fd", None)) is not None:
        os.environ.update(_read(secrets))
    for name in PASSED:
        if init.get(name) is not None:
            # what the script starts must hold none of them when the script is gone
            os.set_inheritable(init[name], False)
    script = Path(init["script"])
    sys.argv = [str(script)]
    sys.path.insert(0, str(script.parent))
    # `addsitedir` and not the bare path: packages that are installed for editing lie behind .pth
    # files
    for folder in init.get("site") or ():
        site.addsitedir(folder)
    if init.get("platform"):
        # last, so that whatever the script brought itself comes first
        sys.path.append(init["platform"])
    os.environ[_AGAIN] = json.dumps(
        {name: init[name] for name in ("script", "site", "platform", "name") if init.get(name)}
    )
    return _port(init)


def _read(secrets: int) -> dict[str, str]:
    """What a descriptor of sealed memory holds; from here on nothing leads to it."""
    with os.fdopen(secrets, "rb") as file:
        file.seek(0)
        return dict(json.load(file))


def _port(init: dict[str, Any]) -> int:
    """An app is not asked to use it, but may turn out to be a program that does."""
    named = str(init.get("listen", "")).rpartition(":")[2]
    # a reloader's child must bind the port that its parent was told, so what is set already stays
    port = named if named.isdecimal() else os.environ.get("PORT", "")
    if not port.isdecimal():
        port = str(free_port())
    os.environ["PORT"] = port
    return int(port)


def started_again() -> dict[str, Any] | None:
    """What to run where this is no start by a launcher, but the command line of one, repeated by the script itself."""
    if "BEMA_CHANNEL" in os.environ or _AGAIN not in os.environ:
        return None
    return dict(json.loads(os.environ[_AGAIN]))

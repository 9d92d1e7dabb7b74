"""A forked process made to look like one that was started anew: what it shares with its brothers is made its own.

Law: what an interpreter sets at its start, and what the standard library keeps of it, is as a start with these surroundings
would have set it. The seeds of `random` and of OpenSSL are theirs to renew in a fork, and they do.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
import time
from collections.abc import Iterable
from types import ModuleType
from typing import Any

# kept by the standard library of an environment, a home or a moment that was the zygote's: what it is, and what it
# was before
_KEPT = (
    ("tempfile", "tempdir", None),
    ("site", "USER_BASE", None),
    ("site", "USER_SITE", None),
    ("sysconfig", "_CONFIG_VARS", None),
    ("sysconfig", "_CONFIG_VARS_INITIALIZED", False),
    ("uuid", "_last_timestamp", None),
)


def surround(surroundings: dict[str, Any]) -> None:
    """Environment, folder and limit of descriptors as given."""
    os.environ.clear()
    os.environ.update(surroundings["env"])
    os.chdir(surroundings["cwd"])
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(surroundings["descriptors"]))


def renew(path: list[str], mine: Iterable[str]) -> None:
    """Everything else; `path` is what `sys.path` was, `mine` are modules that a fresh process has not."""
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith(tuple(mine))]:
        del sys.modules[name]
    time.tzset()
    for name, attribute, before in _KEPT:
        if (module := sys.modules.get(name)) is not None and hasattr(module, attribute):
            setattr(module, attribute, before)
    _reseed("numpy.random")
    if (processes := sys.modules.get("multiprocessing.process")) is not None:
        # else each brother could speak to the managers and pools of the others
        processes.current_process().authkey = os.urandom(32)
    gc.enable()


def _reseed(name: str) -> None:
    module: ModuleType | None = sys.modules.get(name)
    if module is not None:
        module.seed()


def hold_only(kept: Iterable[int]) -> None:
    """Close every descriptor but the standard ones and `kept`."""
    spared = {0, 1, 2, *kept}
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:  # noqa: PTH208 - numbers
        if number not in spared:
            with contextlib.suppress(OSError):
                os.close(number)

"""What isolation this machine offers, and the sandbox that an instance is told to enter.

Law: what is asked for and cannot be had is refused before anything starts, with the reason; and an instance that finds less
than its launcher did ends. Nothing here enters anything: that is `bema/runner/sandbox.py`, in the instance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from bema.core.errors import Refused
from bema.core.limits import Limits
from bema.core.paths import run_dir, state_dir
from bema.deploy.launch.sandbox import Home
from bema.deploy.model.isolation import FILTERED, NONE, STANDARD, STRICT, Isolation
from bema.runner import sandbox

_RESERVED = 4  # times its memory that a strict instance may have of addresses: what is shared counts there alone


class InstanceBounds(msgspec.Struct, frozen=True, kw_only=True):
    """Of one instance: bytes of private memory and of its own folders, more threads than there are, files open at once."""

    memory: int
    processes: int
    files: int
    disk: int

    @classmethod
    def of(cls, limits: Limits) -> InstanceBounds:
        return cls(**{name: limits.named(f"instance_{name}") for name in cls.__struct_fields__})  # type: ignore[arg-type]


def level() -> str:
    """What the kernel offers, as one of the levels of the sandbox."""
    return sandbox.level()


def lacks(isolation: Isolation) -> str:
    """Why this machine cannot give that isolation; empty where it can."""
    if sandbox.LEVELS.index(level()) >= sandbox.LEVELS.index(isolation.level):
        return ""
    return f"it needs the level {isolation.level!r}, and this machine has {level()!r}: {'; '.join(sandbox.missing())}"


def wanted(isolation: Isolation, home: Home, read: Iterable[str], bounds: InstanceBounds) -> dict[str, Any] | None:
    """The `sandbox` of Init; None where nothing is to be entered. `read` is what the instance needs beside its own folders.

    Raises:
        Refused: this machine does not have it (code `isolation_missing`).
    """
    if why := lacks(isolation):
        raise Refused(f"isolation {asked(isolation)} is asked for: {why}", code="isolation_missing")
    if isolation.kind == NONE and isolation.network is None:
        return None
    strict = isolation.kind == STRICT
    limits = {**msgspec.to_builtins(bounds), "file": bounds.disk}
    del limits["disk"]
    if strict:
        limits["address_space"] = bounds.memory * _RESERVED
    # clients meet there; whoever reads it may call what all others of this user may call
    meeting = [] if strict else [str(run_dir()), str(state_dir() / "up.json")]
    return {
        "kind": STANDARD if isolation.kind == NONE else isolation.kind,
        "level": level(),
        "read": [*read, *meeting, *isolation.read],
        "write": [str(home.home), str(home.tmp), *isolation.write],
        "withheld": [str(state_dir())],
        "connect": None if isolation.network is None else list(isolation.network),
        "system_calls": isolation.kind in (FILTERED, STRICT) or isolation.network is not None,
        "limits": limits,
    }


def shown(sandbox_of_init: dict[str, Any] | None) -> dict[str, Any]:
    """What the record says of it: an instance serves only when it has entered the whole of it."""
    if sandbox_of_init is None:
        return {"kind": NONE}
    network = sandbox_of_init["connect"]
    named = {} if network is None else {"network": network}
    return {"kind": sandbox_of_init["kind"], "level": sandbox_of_init["level"], **named, "missing": sandbox.missing()}


def asked(isolation: Isolation) -> str:
    """In words, as it is set."""
    ports = isolation.network
    network = "" if ports is None else f" with network {','.join(map(str, ports)) or 'none'}"
    return f"{isolation.kind!r}{network}"

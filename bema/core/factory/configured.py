"""The policy this process goes by: read once from the files and the environment, or put in place by who composes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bema.core.errors import Invalid
from bema.core.factory.lockfile import read_lock
from bema.core.factory.policy import Policy, read_policy

_placed: Policy | None = None


def current() -> Policy:
    """The policy in place; the first question reads the files of the working directory."""
    global _placed
    if _placed is None:
        _placed = load_policy(Path.cwd(), os.environ)
    return _placed


def place(policy: Policy | None) -> Policy | None:
    """Go by another policy from now on (None: read the files again when asked). Returns what was in place."""
    global _placed
    before, _placed = _placed, policy
    return before


def load_policy(directory: Path, env: Mapping[str, str]) -> Policy:
    """The policy of a directory's files and an environment, with the lock file's rows where the mode needs them."""
    table, source = find_table(directory)
    policy = read_policy(table, env)
    if policy.mode != "locked":
        return policy
    # the lock lies beside the file that asks for it
    home = source.parent if source is not None else directory
    return msgspec.structs.replace(policy, locked=read_lock(home / policy.lock))


def find_table(directory: Path) -> tuple[Mapping[str, Any], Path | None]:
    """`[plugins]` of bema.toml, else `[tool.bema.plugins]` of pyproject.toml, and the file it is in."""
    for name, path in (("bema.toml", ("plugins",)), ("pyproject.toml", ("tool", "bema", "plugins"))):
        file = directory / name
        table: Any = _read(file)
        for part in path:
            table = table.get(part) if isinstance(table, dict) else None
        if table is not None:
            if not isinstance(table, dict):
                raise Invalid(f"{file}: {'.'.join(path)} is not a table", code="bad_setting")
            return table, file
    return {}, None


def _read(file: Path) -> Any:
    try:
        return msgspec.toml.decode(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise Invalid(f"{file} cannot be read: {error}", code="bad_setting") from error

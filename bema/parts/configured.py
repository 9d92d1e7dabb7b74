"""The plugin policy of this process: read once from the settings files and the environment, or placed by the program.

Law: the policy comes from the same files in the same order as every setting: the environment, then `.env`, then `[plugins]`
of bema.toml, then `[tool.bema.plugins]` of pyproject.toml, key by key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bema.core import files
from bema.core.errors import Invalid
from bema.parts.policy import PluginPolicy, read_policy
from bema.parts.provenance import read_lock

TABLE = "plugins"
_placed: PluginPolicy | None = None


def current() -> PluginPolicy:
    """The policy in place; the first question reads the settings files."""
    global _placed
    if _placed is None:
        _placed = load_policy(files.folder(os.environ), os.environ)
    return _placed


def place(policy: PluginPolicy | None) -> PluginPolicy | None:
    """Use another policy from now on (None: read the files again at the next call of `current`). Returns the one before."""
    global _placed
    before, _placed = _placed, policy
    return before


def load_policy(directory: Path, env: Mapping[str, str]) -> PluginPolicy:
    """The policy of a directory's files and an environment, with the lock file's rows where the mode needs them."""
    texts = files.texts(directory)
    said = files.variables(texts.get(files.ENV_FILE, ""))
    table = merged(texts)
    # a variable that is set and empty says nothing, as for every setting, and must not hide .env
    policy = read_policy(table, {**said, **{name: value for name, value in env.items() if value}})
    policy = msgspec.structs.replace(policy, variables=said)
    if policy.mode != "locked":
        return policy
    return msgspec.structs.replace(policy, locked=read_lock(directory / policy.lock))


def merged(texts: Mapping[str, str]) -> dict[str, Any]:
    """Our table out of the texts of the settings files."""
    table: dict[str, Any] = {}
    for file in (files.PYPROJECT_FILE, files.TOML_FILE):
        _lay_over(table, _table(texts.get(file, ""), file))
    return table


def home(texts: Mapping[str, str]) -> str:
    """The file that a change is written to: the nearest one that has our table, else bema.toml."""
    tables = {file: _table(texts.get(file, ""), file) for file in (files.TOML_FILE, files.PYPROJECT_FILE)}
    return next((file for file, table in tables.items() if table is not None), files.TOML_FILE)


def _table(text: str, file: str) -> dict[str, Any] | None:
    # the parser is worth a tenth of a start: a text without the word has no such table
    if TABLE not in text:
        return None
    found = files.table(text, file).get(TABLE)
    if found is not None and not isinstance(found, dict):
        raise Invalid(f"{file}: {'.'.join((*files.TABLES[file], TABLE))} is not a table", code="bad_setting")
    return found


def _lay_over(below: dict[str, Any], above: Mapping[str, Any] | None) -> None:
    for key, value in (above or {}).items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _lay_over(below[key], value)
        else:
            below[key] = value

"""The files that settings are written in: which there are, and how their texts are read. One reader for all settings.

Law: the nearest file wins, in the order of `FILES`. Reading a text is pure; `texts` opens the files of a folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bema.core.errors import Refused

ENV_FILE = ".env"
TOML_FILE = "bema.toml"
PYPROJECT_FILE = "pyproject.toml"
FILES = (ENV_FILE, TOML_FILE, PYPROJECT_FILE)

_MAY_BE_OURS = re.compile(r"""^\s*\[?\s*["']?tool["']?\s*(\]|=|\.\s*["']?bema\b)""", re.MULTILINE)
"""A line of pyproject.toml that may open `[tool.bema]`, however it is written."""

FOLDER_VARIABLE = "BEMA_SETTINGS_DIR"
"""Names the folder of these files to processes that work elsewhere: those that `bema up` starts."""

TABLES: dict[str, tuple[str, ...]] = {TOML_FILE: (), PYPROJECT_FILE: ("tool", "bema")}
"""Where in each TOML file our table is."""


def folder(env: Mapping[str, str]) -> Path:
    """Whose files hold: those of the working directory, unless the environment names another."""
    return Path(env.get(FOLDER_VARIABLE, ""))


def texts(folder: Path) -> dict[str, str]:
    """The texts of those of `FILES` that are there."""
    found = {}
    for name in FILES:
        try:
            text = (folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(
                f"{name} cannot be read: {error}", code="bad_setting", fix=f"Mend or remove {name}."
            ) from error
        # a project's file without our table is not parsed: the parser is worth a tenth of a start
        if name != PYPROJECT_FILE or _MAY_BE_OURS.search(text):
            found[name] = text
    return found


def variables(text: str) -> dict[str, str]:
    """`NAME=value` lines; `export` and matching quotes around a value are taken off, `#` lines passed over."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        found[name.strip()] = value[1:-1] if quoted else value
    return found


def table(text: str, file: str) -> dict[str, Any]:
    """Our table of a TOML file; empty where there is none."""
    try:
        found: Any = msgspec.toml.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"{file} is not valid TOML: {error}", code="bad_setting", fix=f"Mend {file}.") from error
    for part in TABLES[file]:
        found = found.get(part, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}

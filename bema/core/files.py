"""The settings files: which files there are, and the one reader of their texts.

Law: the nearest file wins, in the order of `FILES`. `texts` opens the files of a folder; everything else here is pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bema.core.errors import Refused

ENV_FILE = ".env"
TOML_FILE = "bema.toml"
PYPROJECT_FILE = "pyproject.toml"
FILES = (ENV_FILE, TOML_FILE, PYPROJECT_FILE)

FOLDER_VARIABLE = "BEMA_SETTINGS_DIR"
"""The variable that names the folder of these files to processes in other working directories, as `bema up` starts them."""

TABLES: dict[str, tuple[str, ...]] = {TOML_FILE: (), PYPROJECT_FILE: ("tool", "bema")}
"""Where in each TOML file our table is."""


def folder(env: Mapping[str, str]) -> Path:
    """The folder whose files count: the one that the environment names, else the working directory."""
    return Path(env.get(FOLDER_VARIABLE, ""))


def texts(folder: Path) -> dict[str, str]:
    """The texts of the settings files in a folder, by name.

    Raises:
        Refused: a file is there and cannot be read, or is not UTF-8 (code `bad_setting`).
    """
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
        if name != PYPROJECT_FILE or any(_may_be_ours(line) for line in text.splitlines() if "tool" in line):
            found[name] = text
    return found


def _may_be_ours(line: str) -> bool:
    """Whether a line of pyproject.toml may open `[tool.bema]`, in any of TOML's spellings."""
    # by hand: to compile a pattern takes longer than to look through the file
    tool, found, rest = line.partition("tool")
    if not found or tool.strip(" \t[\"'"):
        return False
    rest = rest.lstrip(" \t\"'")
    return rest[:1] in ("]", "=") or (rest[:1] == "." and rest.lstrip(" \t.\"'").startswith("bema"))


def variables(text: str) -> dict[str, str]:
    """The `NAME=value` lines of a `.env` file, without `export` and quotes around a value; `#` lines are comments."""
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
    """The table of bema in a TOML file; empty where there is none. `Refused` (code `bad_setting`) for invalid TOML."""
    try:
        found: Any = msgspec.toml.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"{file} is not valid TOML: {error}", code="bad_setting", fix=f"Mend {file}.") from error
    for part in TABLES[file]:
        found = found.get(part, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}

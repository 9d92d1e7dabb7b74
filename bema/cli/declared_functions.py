"""`[[function]]` in bema.toml: the functions of a folder, each with what `bema deploy` would be told of it.

Law: all of the table is read and checked before the first function is deployed, and an error names the function and the key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from bema.cli.sources import source_name, source_of
from bema.core import files
from bema.core.errors import BemaError, Invalid, of_code
from bema.core.naming import check_deployment, nearest
from bema.core.redaction import hides
from bema.deploy.sources.function_table import KEYS, read_function

_OWN: Final = ("name", "file", "source")


class FunctionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One function: where its code is, as a source of the API, its variables, and its settings by name."""

    name: str
    source: dict[str, Any]
    env: dict[str, str] = {}
    settings: dict[str, Any] = {}
    __repr__ = hides("env")


def functions(folder: Path) -> list[FunctionEntry]:
    """The functions that the bema.toml of a folder names, in its order.

    Raises:
        Invalid: there is no such file or it names none (code `usage`), or a function in it cannot be deployed as it says.
    """
    file = folder / files.TOML_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{file} cannot be read: {error}", code="bad_setting") from error
    said = files.table(text, files.TOML_FILE).get("function", [])
    if not isinstance(said, list) or not all(isinstance(each, dict) for each in said):
        raise Invalid(f"{files.TOML_FILE}: `function` is no list of tables: write [[function]]", code="bad_setting")
    if not said:
        raise Invalid(
            f"no FILE was named, and {file} names no function",
            code="usage",
            fix="Name a file, or write [[function]] with `file` in bema.toml.",
        )
    found = [_entry(each, f"{files.TOML_FILE}: function {number}", folder) for number, each in enumerate(said, 1)]
    names = [each.name for each in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Invalid(f"{files.TOML_FILE}: two functions are named {twice!r}", code="bad_setting")
    return found


def _entry(said: dict[str, Any], where: str, folder: Path) -> FunctionEntry:
    file, source = said.get("file"), said.get("source")
    if (file is None) == (source is None):
        raise Invalid(
            f"{where} has {'both' if file else 'neither'} `file` {'and' if file else 'nor'} `source`",
            code="bad_setting",
        )
    name = said.get("name", source_name(file) if isinstance(file, str) else "")
    if not isinstance(name, str) or not name:
        raise Invalid(f"{where} has no `name`", code="bad_setting")
    where = f"{where} ({name})"
    check_deployment(name)

    def wrong(key: str, problem: str) -> BemaError:
        return Invalid(f"{where}: {key} {problem}", code="bad_setting")

    rest = {key: value for key, value in said.items() if key not in _OWN}
    # of a script alone: which of its names is served
    if unknown := next((key for key in rest if key not in KEYS or key == "entry"), None):
        raise Invalid(f"{where}: there is no key {unknown!r}{nearest(unknown, (*_OWN, *KEYS))}", code="bad_setting")
    settings, env = read_function(rest, wrong)
    return FunctionEntry(
        name=name, source=_source(file, source, where, folder), env=env, settings=msgspec.to_builtins(settings)
    )


def _source(file: Any, source: Any, where: str, folder: Path) -> dict[str, Any]:
    if file is None:
        if not isinstance(source, dict) or not isinstance(source.get("type"), str):
            raise Invalid(
                f'{where}: `source` is no table with a `type`, as {{type = "gist", id = "..."}}', code="bad_setting"
            )
        return dict(source)
    if not isinstance(file, str):
        raise Invalid(f"{where}: `file` is no text", code="bad_setting")
    here = folder / file  # what is relative is so to the file that says it
    try:
        return source_of(str(here) if here.exists() else file)
    except BemaError as error:
        told = of_code(error.code, f"{where}: {error.message}", **error.details)
        told.fix = error.fix
        raise told from error

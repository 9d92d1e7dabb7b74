"""Settings: one table, and one reader that knows where each value came from.

Law: the nearest origin wins: flag, then `BEMA_*`, then `.env`, then `bema.toml`, then `[tool.bema]` of pyproject.toml,
then the default. `read` is pure: it is given the environment and the texts of the files; `load` opens those. A value that
does not fit is refused where it is read, and the refusal names its origin.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bema.core import files, paths
from bema.core.errors import Refused
from bema.core.files import ENV_FILE, PYPROJECT_FILE, TOML_FILE
from bema.core.limits import LIMITS

DEFAULT = "default"
NEARBY = "the platform that runs here"
LEVELS = ("debug", "info", "warning", "error")

Scalar = str | int | float


class Setting(NamedTuple):
    """One row: `choices` are the only values, where they are few; a number lies within `least` and `most`.

    `in_files` is False for what holds in every process, also in one that reads no files, as a service started by hand.
    """

    name: str
    type: type[Scalar]
    default: Scalar
    says: str
    choices: tuple[str, ...] = ()
    least: float = 0
    most: float = math.inf
    in_files: bool = True

    @property
    def variable(self) -> str:
        """Its environment variable: `gateway.port` is `BEMA_GATEWAY__PORT`."""
        return "BEMA_" + self.name.upper().replace(".", "__")


class Value(NamedTuple):
    """What a setting is, and where that was said."""

    value: Scalar
    origin: str


_PORT = 65_535
_LEAST: dict[type, float] = {int: 1, float: 0.001}

_TABLE = (
    Setting("state_dir", str, "", "folder of everything that outlives a restart", in_files=False),
    Setting("gateway.host", str, "127.0.0.1", "address of the data listener"),
    Setting("gateway.port", int, 8700, "port of the data listener; taken and not asked for: a free one", most=_PORT),
    Setting("control.host", str, "127.0.0.1", "address of the control listener"),
    Setting("control.port", int, 8701, "port of the control listener; taken and not asked for: a free one", most=_PORT),
    Setting("status_host", str, "127.0.0.1", "address of a process's own status pages; 0.0.0.0: all", in_files=False),
    Setting("status_port", str, "", "port of a process's own status pages; 0: a free one", in_files=False),
    Setting("log.level", str, "info", "least level that the platform's own log lines have", choices=LEVELS),
    *(
        Setting(
            f"limits.{row.name}",
            type(row.default),
            row.default,
            f"{row.says} ({row.unit})",
            least=_LEAST[type(row.default)],
        )
        for row in LIMITS.values()
    ),
)

SETTINGS: dict[str, Setting] = {row.name: row for row in _TABLE}


class Settings:
    """Every setting's value; asked for by name and type, so that a mistyped name fails at once."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)

    def text(self, name: str) -> str:
        value = self._values[name].value
        if not isinstance(value, str):
            raise TypeError(f"setting {name} is not text")
        return value

    def number(self, name: str) -> int:
        value = self._values[name].value
        if not isinstance(value, int):
            raise TypeError(f"setting {name} is not a whole number")
        return value

    def limit(self, name: str) -> int | float:
        """A row of `core/limits.py`, as set here."""
        value = self._values[f"limits.{name}"].value
        assert not isinstance(value, str)
        return value

    def limits(self) -> dict[str, int | float]:
        return {name: self.limit(name) for name in LIMITS}

    def origin(self, name: str) -> str:
        return self._values[name].origin

    def asked_for(self, name: str) -> bool:
        """Whether somebody said so: a port that was asked for is not replaced by a free one."""
        return self.origin(name) != DEFAULT

    def all(self) -> dict[str, Value]:
        return dict(self._values)


def load(
    folder: Path | None = None, env: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> Settings:
    """The settings that hold in `folder` (default: the working directory, or what BEMA_SETTINGS_DIR names).

    With no environment given, that of this process, and the platform that runs on a `.bema` nearby is found.
    """
    given = os.environ if env is None else env
    nearby = paths.nearby() if env is None else None
    return read(given, files.texts(folder or files.folder(given)), flags, nearby)


def read(
    env: Mapping[str, str],
    texts: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
    nearby: Path | None = None,
) -> Settings:
    """The settings that hold, from the environment, the texts of `files.FILES` by name, and what flags said (None: nothing).

    `nearby` is the state directory that was found where nobody named one.
    """
    in_files = (
        _from_variables(files.variables(texts.get(ENV_FILE, "")), f"{ENV_FILE} {{}}"),
        _from_toml(texts.get(TOML_FILE, ""), TOML_FILE),
        _from_toml(texts.get(PYPROJECT_FILE, ""), PYPROJECT_FILE),
    )
    _refuse_in_files(in_files)
    _refuse_unknown_variables(env)
    layers = (_from_flags(flags or {}), _from_variables(env, "variable {}"), *in_files)
    values = {}
    for row in _TABLE:
        said = next((layer[row.name] for layer in layers if row.name in layer), None)
        values[row.name] = Value(row.default, DEFAULT) if said is None else _checked(row, said)
    if not values["state_dir"].value:
        values["state_dir"] = Value(str(nearby), NEARBY) if nearby else Value(str(paths.state_dir(env)), DEFAULT)
    return Settings(values)


class _Said(NamedTuple):
    value: object
    origin: str


def _refuse_in_files(layers: tuple[dict[str, _Said], ...]) -> None:
    for row in _TABLE:
        for layer in layers:
            if not row.in_files and row.name in layer:
                raise Refused(
                    f"setting {row.name} cannot be set in a file (from {layer[row.name].origin})",
                    code="bad_setting",
                    fix=f"Set the variable {row.variable}: it holds in processes that read no file, too.",
                )


def _refuse_unknown_variables(env: Mapping[str, str]) -> None:
    known = {row.variable for row in _TABLE}
    sections = tuple(f"BEMA_{section.upper()}__" for section in sorted(_SECTIONS))
    for name in env:
        if name.startswith(sections) and name not in known:
            raise Refused(
                f"there is no setting for the variable {name}",
                code="bad_setting",
                fix="`bema config show --origin` lists every variable.",
            )


def _from_flags(flags: Mapping[str, object]) -> dict[str, _Said]:
    return {name: _Said(value, "flag") for name, value in flags.items() if value is not None}


def _from_variables(env: Mapping[str, str], origin: str) -> dict[str, _Said]:
    return {row.name: _Said(env[row.variable], origin.format(row.variable)) for row in _TABLE if env.get(row.variable)}


def _from_toml(text: str, file: str) -> dict[str, _Said]:
    found = files.table(text, file)
    table = files.TABLES[file]
    said = {name: _Said(value, f"{file} {'.'.join((*table, name))}") for name, value in _flat(found)}
    if unknown := next((name for name in said if name not in SETTINGS and name.split(".")[0] in _SECTIONS), None):
        raise Refused(
            f"{file}: there is no setting {unknown!r}",
            code="bad_setting",
            fix="`bema config show` lists what there is.",
        )
    return said


# other keys of our tables belong to other readers: `entry` of a script, for one
_SECTIONS = {name.partition(".")[0] for name in SETTINGS if "." in name}


def _flat(value: object, path: str = "") -> list[tuple[str, object]]:
    if not isinstance(value, dict):
        return [(path, value)] if path else []
    return [row for key, inner in value.items() for row in _flat(inner, f"{path}.{key}" if path else key)]


_WANTED: dict[type, str] = {int: "a whole number", float: "a number", str: "text"}


def _checked(row: Setting, said: _Said) -> Value:
    value = _converted(row, said.value)
    if value is None:
        raise _refusal(row, said, f"is not {_WANTED[row.type]}")
    if row.choices and value not in row.choices:
        raise _refusal(row, said, f"is not one of {', '.join(row.choices)}")
    if isinstance(value, (int, float)) and not row.least <= value <= row.most:
        upper = "" if row.most == math.inf else f" and at most {row.most:g}"
        raise _refusal(row, said, f"is not at least {row.least:g}{upper}")
    return Value(value, said.origin)


def _converted(row: Setting, value: object) -> Scalar | None:
    """The value as the row's type, or None. Text is read as a number where a number is wanted, nothing else is bent."""
    if row.type is str:
        return value if isinstance(value, str) else None
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return None
    if row.type is int and isinstance(value, float):
        return None
    try:
        number = row.type(value)
    except ValueError:
        return None
    return number if not isinstance(number, float) or math.isfinite(number) else None


def _refusal(row: Setting, said: _Said, why: str) -> Refused:
    return Refused(f"setting {row.name}: {said.value!r} {why} (from {said.origin})", code="bad_setting")

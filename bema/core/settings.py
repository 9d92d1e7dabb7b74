"""Settings: one table of settings, and one reader that knows where each value came from.

Laws: the nearest origin wins: flag, then `BEMA_*`, then `.env`, then `bema.toml`, then `[tool.bema]` of pyproject.toml,
then the default. A value that does not fit is refused where it is read, and the refusal names its origin. `read` is pure;
`load` opens the files for it, and `current` loads once in a process, at its entry.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from bema.core import files, paths
from bema.core.errors import Refused
from bema.core.files import ENV_FILE, PYPROJECT_FILE, TOML_FILE
from bema.core.limits import LIMITS, Limits
from bema.core.naming import nearest

DEFAULT = "default"
NEARBY = "the platform that runs here"
LEVELS = ("debug", "info", "warning", "error")
ISOLATION = ("none", "standard", "filtered", "strict")
"""How far deployed scripts are kept from the rest of the machine, the least first."""

Scalar = str | int | float


class Setting(msgspec.Struct, frozen=True):
    """One setting. `choices` are its only values, where they are few; a number lies within `least` and `most`.

    `in_files` is False for a setting that is needed before any file is read, so that only the environment can give it.
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


class Value(msgspec.Struct, frozen=True):
    """The value of a setting, and where it came from."""

    value: Scalar
    origin: str


_PORT = 65_535
_TABLE = (
    Setting("state_dir", str, "", "folder of everything that outlives a restart", in_files=False),
    Setting("gateway.host", str, "127.0.0.1", "address of the data listener"),
    Setting("gateway.port", int, 8700, "port of the data listener; taken and not asked for: a free one", most=_PORT),
    Setting("control.host", str, "127.0.0.1", "address of the control listener"),
    Setting("control.port", int, 8701, "port of the control listener; taken and not asked for: a free one", most=_PORT),
    Setting(
        "hosts", str, "", "names, between commas, that both listeners answer to beside the loopback's and their own"
    ),
    Setting("status_host", str, "127.0.0.1", "address of a process's own status pages; 0.0.0.0: all", in_files=False),
    Setting("status_port", str, "", "port of a process's own status pages; 0: a free one", in_files=False),
    Setting("log.level", str, "info", "least level that the platform's own log lines have", choices=LEVELS),
    Setting("log.calls", int, 100, "lines per second that a service logs of its calls; 0: none", most=10**6),
    Setting("isolation.kind", str, "standard", "least isolation of deployed scripts", choices=ISOLATION),
    Setting("isolation.network", str, "any", "TCP that deployed scripts may use: any, none, or ports such as 53,443"),
    Setting("isolation.read", str, "", "folders, between colons, that every deployed script may read beside"),
    Setting(
        "isolation.write", str, "", "folders, between colons, that every deployed script may read and write beside"
    ),
    Setting("lane", str, "", "whose instances calls go to: dev, hand, deployment/NAME; empty: chosen", in_files=False),
    *(
        Setting(
            f"limits.{row.name}",
            type(row.default),
            row.default,
            f"{row.says} ({row.unit})",
            least=row.least,
            most=row.most,
        )
        for row in LIMITS.values()
    ),
)

SETTINGS: dict[str, Setting] = {row.name: row for row in _TABLE}


class PartSettings(Mapping[str, Scalar]):
    """What a part is opened with: the settings of its own section, read only, beside those in force for all.

    `limits` are the limits of the process, `state` is the folder for files that outlive a restart. A part of the group
    `bema.state` has the section `[parts."bema.state"]`; the variable of its key `size` is `BEMA_STATE__SIZE`, and the
    value of a variable is text.
    """

    def __init__(self, section: Mapping[str, Scalar], limits: Limits, state: Path) -> None:
        self._section = section
        self.limits = limits
        self.state = state

    def __getitem__(self, name: str) -> Scalar:
        return self._section[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._section)

    def __len__(self) -> int:
        return len(self._section)


class Settings:
    """The value of every setting, asked for by name and type.

    `parts` are the sections of parts by group, `said` the variables that may be keys of such a section.
    """

    def __init__(
        self,
        values: Mapping[str, Value],
        parts: Mapping[str, Mapping[str, Scalar]] | None = None,
        said: Mapping[str, str] | None = None,
    ) -> None:
        self._values = dict(values)
        self._parts = dict(parts or {})
        self._said = dict(said or {})
        self.limits = Limits(**{name: self._values[f"limits.{name}"].value for name in LIMITS})  # type: ignore[arg-type]

    def text(self, name: str) -> str:
        """The text of a setting; `KeyError` for an unknown name, `TypeError` for a number."""
        value = self._values[name].value
        if not isinstance(value, str):
            raise TypeError(f"setting {name} is not text")
        return value

    def number(self, name: str) -> int:
        """The whole number of a setting; `KeyError` for an unknown name, `TypeError` for another type."""
        value = self._values[name].value
        if not isinstance(value, int):
            raise TypeError(f"setting {name} is not a whole number")
        return value

    def but(self, limits: Limits) -> Settings:
        """A copy with other limits, which a launcher told or a program chose."""
        if limits == self.limits:
            return self
        told = {f"limits.{name}": getattr(limits, name) for name in LIMITS}
        changed = {name: Value(value, "told") for name, value in told.items() if value != self._values[name].value}
        return Settings(self._values | changed, self._parts, self._said)

    def of(self, group: str) -> PartSettings:
        """The settings that a part of the group is opened with; a variable goes before the files."""
        prefix = group.upper().replace(".", "_") + "__"
        said = {
            name.removeprefix(prefix).lower(): value for name, value in self._said.items() if name.startswith(prefix)
        }
        return PartSettings({**self._parts.get(group, {}), **said}, self.limits, Path(self.text("state_dir")))

    def origin(self, name: str) -> str:
        """Where a value came from, such as `flag`, `variable BEMA_LOG__LEVEL` or `default`."""
        return self._values[name].origin

    def asked_for(self, name: str) -> bool:
        """Whether somebody set it: a port that was asked for is not replaced by a free one."""
        return self.origin(name) != DEFAULT

    def all(self) -> dict[str, Value]:
        return dict(self._values)


def load(
    folder: Path | None = None, env: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> Settings:
    """The settings that hold in `folder` (default: the working directory, or the one that BEMA_SETTINGS_DIR names).

    Without `env`, the environment of this process counts, and a platform that runs on a `.bema` nearby is found.
    `Refused` (code `bad_setting`) names a value that does not fit, and its origin.
    """
    # once, as plain text: `os.environ` encodes each name that it is asked for
    given = dict(os.environ) if env is None else env
    nearby = paths.nearby() if env is None else None
    return read(given, files.texts(folder or files.folder(given)), flags, nearby)


_current: Settings | None = None


def current() -> Settings:
    """The settings of this process. The first call loads them, at the entry of the process; later calls give the same."""
    global _current
    if _current is None:
        _current = load()
    return _current


def place(settings: Settings | None) -> Settings | None:
    """Use these settings from now on (None: load again at the next call of `current`). Returns those before."""
    global _current
    before, _current = _current, settings
    return before


def read(
    env: Mapping[str, str],
    texts: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
    nearby: Path | None = None,
) -> Settings:
    """The settings from the environment, the texts of the settings files by name, and flags, of which None are unset.

    `nearby` is the state directory to use where nobody named one. `Refused` (code `bad_setting`) as for `load`.
    """
    dotenv = files.variables(texts.get(ENV_FILE, ""))
    in_files = (
        _from_variables(dotenv, f"{ENV_FILE} {{}}"),
        _from_toml(texts.get(TOML_FILE, ""), TOML_FILE),
        _from_toml(texts.get(PYPROJECT_FILE, ""), PYPROJECT_FILE),
    )
    _refuse_in_files(in_files)
    _refuse_unknown_variables(env, "variable {}")
    _refuse_unknown_variables(dotenv, f"variable {{}} of {ENV_FILE}")
    # only the layer that holds is checked: a mistake in one that another overrides stops nobody
    holds: dict[str, _Said] = {}
    for layer in (*reversed(in_files), _from_variables(env, "variable {}"), _from_flags(flags or {})):
        holds |= layer
    values = {}
    for row in _TABLE:
        said = holds.get(row.name)
        values[row.name] = Value(row.default, DEFAULT) if said is None else _checked(row, said)
    # last: where nobody named one it follows from the environment, and not from a default of the
    # table
    if not values["state_dir"].value:
        values["state_dir"] = Value(str(nearby), NEARBY) if nearby else Value(str(paths.state_dir(env)), DEFAULT)
    variables = {name: value for name, value in {**dotenv, **env}.items() if "__" in name and value}
    return Settings(values, _sections_of_parts(texts), variables)


def _sections_of_parts(texts: Mapping[str, str]) -> dict[str, dict[str, Scalar]]:
    """The sections such as `[parts."bema.state"]` of bema.toml and pyproject.toml, key by key."""
    found: dict[str, dict[str, Scalar]] = {}
    for file in (PYPROJECT_FILE, TOML_FILE):
        parts = files.table(texts[file], file).get("parts", {}) if texts.get(file) else {}
        for group, section in parts.items() if isinstance(parts, dict) else ():
            if not isinstance(section, dict) or not all(isinstance(value, Scalar) for value in section.values()):
                where = ".".join((*files.TABLES[file], "parts"))
                raise Refused(
                    f'{file} {where}."{group}" is not a table of texts and numbers',
                    code="bad_setting",
                    fix=f'Write [{where}."{group}"] with a line for each key.',
                )
            found.setdefault(group, {}).update(section)
    return found


class _Said(msgspec.Struct, frozen=True):
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


@functools.cache
def _variables() -> dict[str, Setting]:
    return {row.variable: row for row in _TABLE}


def _refuse_unknown_variables(env: Mapping[str, str], origin: str) -> None:
    # two underscores mark a section; only names near one of ours are refused, as others read `BEMA_*` variables too
    known = _variables()
    for name in env:
        prefix, inner, _ = name.partition("__")
        if inner and prefix.startswith("BEMA_") and _ours(prefix[5:].lower()) and name not in known:
            raise Refused(
                f"there is no setting for the {origin.format(name)}{nearest(name, known)}",
                code="bad_setting",
                fix="`bema config show --origin` lists every variable.",
            )


def _from_flags(flags: Mapping[str, object]) -> dict[str, _Said]:
    return {name: _Said(value, "flag") for name, value in flags.items() if value is not None}


def _from_variables(env: Mapping[str, str], origin: str) -> dict[str, _Said]:
    known = _variables()
    return {known[name].name: _Said(text, origin.format(name)) for name, text in env.items() if text and name in known}


def _from_toml(text: str, file: str) -> dict[str, _Said]:
    if not text:  # the parser itself is worth a tenth of a start
        return {}
    found = files.table(text, file)
    table = files.TABLES[file]
    said = {name: _Said(value, f"{file} {'.'.join((*table, name))}") for name, value in _flat(found)}
    if unknown := next((name for name in said if name not in SETTINGS and _ours(name.split(".")[0])), None):
        raise Refused(
            f"{file}: there is no setting {unknown!r}{nearest(unknown, SETTINGS)}",
            code="bad_setting",
            fix="`bema config show` lists what there is.",
        )
    return said


_SECTIONS = {name.partition(".")[0] for name in SETTINGS if "." in name}


def _ours(section: str) -> bool:
    """Whether a section is one of ours or a misspelling of one; other keys of our tables have readers of their own."""
    return section in _SECTIONS or (section not in _OTHERS and bool(nearest(section, _SECTIONS)))


_OTHERS = {"plugins", "parts", "entry"}


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
        upper = "" if row.most == math.inf else f" and at most {row.most:.15g}"
        raise _refusal(row, said, f"is not at least {row.least:.15g}{upper}")
    return Value(value, said.origin)


def _converted(row: Setting, value: object) -> Scalar | None:
    """The value as the row's type, or None. Text is read as a number where a number is wanted; nothing else is converted."""
    # variables are text, so a number may come as one; TOML has types, and there a mistake must not pass
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

"""Doctor: what may be wrong with the plugins of a machine, as findings with remedies. No plugin is imported.

Law: a finding is an error only where something that was asked for does not work; a mere surprise is a warning.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from bema.core.paths import VARIABLE as STATE_VARIABLE
from bema.parts import configured
from bema.parts.discover import SUFFIX, rivals_of, unknown
from bema.parts.entries import Origin, PartEntry, PartState, key_of
from bema.parts.provenance import is_editable, requirements_of_extra, source_of
from bema.parts.registry import Registry, variable
from bema.parts.resolve import Candidate, Reason
from bema.parts.scan import Snapshot, installed

Level = Literal["error", "warning", "note"]


class PluginFinding(msgspec.Struct, frozen=True, order=True):
    code: str
    level: Level
    says: str
    fix: str
    dist: str = ""


_STATES: dict[PartState, tuple[Level, str]] = {
    PartState.FAILED: ("error", "Mend or uninstall it, or disable it with `bema plugins disable`."),
    PartState.INVALID: ("error", "Its entry point must read `module:Class`."),
    PartState.WRONG_TYPE: ("error", "Its entry point must name a whole subclass of what the factory makes."),
    PartState.INCOMPATIBLE: ("error", "Install a version of it for this interface."),
    PartState.NOT_ALLOWED: (
        "warning",
        "Add it to plugins.allow or plugins.override_builtin, lock it, or uninstall it.",
    ),
    PartState.DISABLED: ("note", "`bema plugins enable` takes it in again."),
    PartState.SHADOWED: ("warning", "Remove one of the two copies, or change the order of the path."),
}


def diagnose(registries: Sequence[Registry], env: Mapping[str, str]) -> list[PluginFinding]:
    """Everything worth saying, worst first, in an order of its own."""
    snapshot = installed()
    found = list(_files(snapshot))
    for registry in registries:
        for key in registry.table():
            candidates = registry.candidates(key)
            found += _name(registry, key, candidates)
            for candidate in candidates:
                found += _candidate(registry, candidate, snapshot)
        found += _variables(registry, env)
        found += _in_use(registry)
    found += _settings(registries)
    found += _sources(registries)
    rank = {"error": 0, "warning": 1, "note": 2}
    return sorted(set(found), key=lambda f: (rank[f.level], f))


def _files(snapshot: Snapshot) -> Iterator[PluginFinding]:
    for broken in snapshot.broken:
        whose = broken.dist or "a finder"
        fix = "Its other lines are used. Reinstall it, or tell its authors."
        yield PluginFinding("broken_metadata", "warning", f"{whose}: {broken.path}: {broken.problem}", fix, broken.dist)
    for path in snapshot.leftovers:
        yield PluginFinding(
            "leftover", "warning", f"{path} was left by an interrupted installation", "Delete that folder."
        )


def _name(registry: Registry, key: str, candidates: list[Candidate]) -> Iterator[PluginFinding]:
    if rivals := rivals_of(candidates):
        names = ", ".join(e.label for e in rivals)
        fix = f'Choose in bema.toml: [plugins.select."{registry.group}"] {key} = "{rivals[0].id}".'
        yield PluginFinding("conflict", "warning", f"{registry.title} {key!r} is claimed by {names}", fix)
    choice = registry.choice(key, candidates)
    if choice.winner is None and choice.reason is not Reason.NOTHING:
        fix = "`bema plugins ls` shows what can be selected."
        yield PluginFinding("selection", "error", f"{registry.title}: {choice.problem}", fix)


def _candidate(registry: Registry, candidate: Candidate, snapshot: Snapshot) -> Iterator[PluginFinding]:
    entry = candidate.entry
    if candidate.state in _STATES:
        level, fix = _STATES[candidate.state]
        says = f"{registry.title} {entry.name!r}: {entry.label} is {candidate.state.value}: {candidate.why}"
        yield PluginFinding(candidate.state.value, level, says, fix, entry.dist)
    if entry.origin is Origin.GROUP:
        says = f"{entry.label} names a builtin by an entry point in the bare group {entry.group!r}"
        fix = f'Write @{registry.title}.register("{entry.name}") above the class, or use the group "{entry.group}{SUFFIX}".'
        yield PluginFinding("bare_group", "note", says, fix, entry.dist)
    for extra in entry.extras:
        lacking = [d for d in requirements_of_extra(extra, entry.path) if d not in snapshot.distributions]
        if lacking:
            says = f"{entry.label} asks for its extra [{extra}], and {', '.join(lacking)} is not installed"
            yield PluginFinding("extra", "warning", says, f"pip install '{entry.dist}[{extra}]'", entry.dist)
    if entry.path.endswith(".egg-info"):
        says = f"{entry.label} is described by {entry.path}, which a build left behind"
        yield PluginFinding("egg_info", "warning", says, "Reinstall it with pip, or delete that folder.", entry.dist)


def _variables(registry: Registry, env: Mapping[str, str]) -> Iterator[PluginFinding]:
    prefix = variable(registry.group) + "_"
    known = {variable(registry.group, key) for key in registry.table()}
    for name in sorted(env):
        if registry.group and name.startswith(prefix) and name not in known and name != STATE_VARIABLE:
            fix = f"The names are {', '.join(sorted(known)) or 'none yet'}."
            yield PluginFinding(
                "variable", "warning", f"{name} selects for a name that {registry.title} does not have", fix
            )


def _in_use(registry: Registry) -> Iterator[PluginFinding]:
    name = registry.name_in_use()
    if name and key_of(name) not in registry.table():
        says = f"{registry.title}: {unknown(registry, name)}"
        fix = f"Correct {variable(registry.group)} in the environment, or plugins.use in the settings."
        yield PluginFinding("selection", "error", says, fix)


def _settings(registries: Sequence[Registry]) -> Iterator[PluginFinding]:
    groups = {registry.group: registry for registry in registries}
    policy = configured.current()
    for key, table in (("select", policy.select), ("use", policy.use)):
        for group in table.keys() - groups.keys():
            yield PluginFinding(
                "setting", "warning", f"plugins.{key} names the unknown group {group!r}", "Correct the group."
            )
    for group, names in policy.select.items():
        if group not in groups:
            continue
        for key in sorted(names.keys() - groups[group].table().keys()):
            says = f"plugins.select chooses for {key!r}, which {groups[group].title} does not have"
            yield PluginFinding("setting", "warning", says, "Correct the name.")


def _sources(registries: Iterable[Registry]) -> Iterator[PluginFinding]:
    """Findings on entry points that an editable project declares and its installed metadata does not have."""
    entries: dict[str, PartEntry] = {}
    for registry in registries:
        for found in registry.table().values():
            entries |= {e.path: e for e in found if e.path and is_editable(e.path)}
    # an editable install links to the code and copies the entry points
    groups = {registry.group + SUFFIX for registry in registries}
    points = {(g, p.name, p.value) for g in groups for p in installed().points(g)}
    for path, entry in entries.items():
        declared = _declared_by(Path(unquote(urlsplit(source_of(path).partition(" ")[2]).path)), groups)
        for group, name, value in sorted(declared - points):
            says = f"{entry.dist} declares {name} = {value!r} in {group} since it was installed"
            yield PluginFinding(
                "reinstall",
                "warning",
                says,
                "Install it again; an editable install keeps its entry points.",
                entry.dist,
            )


def _declared_by(project: Path, groups: set[str]) -> set[tuple[str, str, str]]:
    try:
        table: Any = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
        return {(g, name, str(value)) for g in groups for name, value in table.get(g, {}).items()}
    except (OSError, ValueError, KeyError, AttributeError):
        return set()

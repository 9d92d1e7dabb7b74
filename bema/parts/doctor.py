"""Doctor: what may be wrong with the plugins of a machine, as findings with remedies. No plugin is imported.

Law: a finding is an error only where something that was asked for does not work; a mere surprise is a warning.
"""

from __future__ import annotations

import site
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from bema.core.paths import VARIABLE as STATE_VARIABLE
from bema.parts import configured
from bema.parts.discover import SUFFIX, undecided, unknown
from bema.parts.entries import Origin, PartState, key_of
from bema.parts.metadata import headers, readings
from bema.parts.policy import PluginPolicy
from bema.parts.provenance import is_editable, project_of, requirements_of_extra
from bema.parts.registry import Registry, variable
from bema.parts.resolve import Candidate, Reason
from bema.parts.scan import Broken, Snapshot, installed

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
        for report in (kept[3] for kept in registry.reports.values()):
            found += _broken(set(report.broken) - set(snapshot.broken))
        found += _variables(registry, env)
        found += _in_use(registry)
    found += _settings(registries)
    found += _startup_code(configured.current())
    found += _sources(registries)
    rank = {"error": 0, "warning": 1, "note": 2}
    # one fault may be met through several factories
    return sorted(set(found), key=lambda f: (rank[f.level], f))


def _files(snapshot: Snapshot) -> Iterator[PluginFinding]:
    yield from _broken(snapshot.broken)
    for path in sorted(_nobodys(snapshot)):
        says = f"{path} has no METADATA that names it: it is nobody's, and hides nobody"
        yield PluginFinding("hollow", "warning", says, "Delete that folder, or install its package again.")
    for dist in snapshot.distributions.values():
        stem = Path(dist.path).name.rpartition(".")[0]
        if dist.read and stem and dist.name not in readings(stem):
            says = f"{dist.path} is of {dist.name}, as its METADATA says, whatever the folder's name says"
            yield PluginFinding("identity", "warning", says, "Find out who installed it.", dist.name)
    for path in snapshot.leftovers:
        yield PluginFinding(
            "leftover", "warning", f"{path} was left by an interrupted installation", "Delete that folder."
        )


def _broken(found: Iterable[Broken]) -> Iterator[PluginFinding]:
    for broken in found:
        whose = broken.dist or "a finder"
        fix = "Its other lines are used. Reinstall it, or tell its authors."
        yield PluginFinding("broken_metadata", "warning", f"{whose}: {broken.path}: {broken.problem}", fix, broken.dist)


def _nobodys(snapshot: Snapshot) -> set[str]:
    # a scan reads no METADATA on which nothing depends; here there is time
    unread = {d.path for d in snapshot.distributions.values() if not d.read and not headers(d.path).get("name")}
    told = {broken.path for broken in snapshot.broken}
    return (unread | {hollow.path for hollow in snapshot.hollow}) - told


def _name(registry: Registry, key: str, candidates: list[Candidate]) -> Iterator[PluginFinding]:
    if rivals := undecided(registry, key, candidates):
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
    """Findings on entry points in which an editable project and its installed metadata differ."""
    groups = {registry.group + SUFFIX for registry in registries}
    # an editable install links to the code and copies the entry points; it may have had none of ours then
    for dist in installed().distributions.values():
        if not is_editable(dist.path) or (declared := _declared_by(project_of(dist.path), groups)) is None:
            continue
        points = {(g, name, value) for g in groups for name, value in dist.groups.get(g, ())}
        for changed, says in ((declared - points, "declares"), (points - declared, "does not declare any more")):
            for group, name, value in sorted(changed):
                yield PluginFinding(
                    "reinstall",
                    "warning",
                    f"{dist.name} {says} {name} = {value!r} in {group}, other than when it was installed",
                    "Install it again; an editable install keeps its entry points.",
                    dist.name,
                )


def _declared_by(project: Path, groups: set[str]) -> set[tuple[str, str, str]] | None:
    """What pyproject.toml declares; None where it leaves that to something else (setup.py, a tool's own table)."""
    try:
        table: Any = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
        # what a build makes up cannot be known without running it
        if "entry-points" in table.get("dynamic", ()):
            return None
        points = table.get("entry-points", {})
        return {(g, name, str(value)) for g in groups for name, value in points.get(g, {}).items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _startup_code(policy: PluginPolicy) -> Iterator[PluginFinding]:
    """Findings on files that Python runs at its start, before any policy is read (site, and `.start` by PEP 829)."""
    if policy.mode == "all":
        return
    # only there does site look for them; in any other folder of the path they are files like others
    for place in dict.fromkeys((*site.getsitepackages(), site.getusersitepackages())):
        for file in sorted(Path(place).glob("*.pth")) + sorted(Path(place).glob("*.start")):
            # site runs the lines of a .pth that begin with `import`; the others are folders for the path
            if _runs_code(file):
                says = f"{file} runs code at every start of Python, which no mode of plugins stops"
                yield PluginFinding("startup_code", "note", says, "Delete it unless you know whose it is.")


def _runs_code(file: Path) -> bool:
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    if file.suffix == ".start":
        return any(line.strip() and not line.startswith("#") for line in lines)
    return any(line.startswith(("import ", "import\t")) for line in lines)

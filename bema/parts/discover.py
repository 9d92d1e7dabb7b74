"""Discovery of plugins: from the installed entry points to the candidates of one factory, and the report of it.

Law: nothing is imported here, and the second discovery reads nothing from disk where nothing has changed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from bema.core.naming import nearest
from bema.parts import configured
from bema.parts.entries import Origin, PartEntry, PartState, key_of, read_reference, reference_of
from bema.parts.errors import FactoryError, UnknownImplementation
from bema.parts.load import log
from bema.parts.manifest import GROUP as MANIFEST
from bema.parts.manifest import PartInfo, parts_of, told, typed, unfitting
from bema.parts.provenance import is_own_leftover, requirement_on, source_of
from bema.parts.registry import Registry
from bema.parts.resolve import Candidate, Reason, broke, leads
from bema.parts.scan import Broken, EntryPointRow, Snapshot, installed

SUFFIX = ".plugins"


def entries_of(snapshot: Snapshot, root: str, api: str = "") -> list[PartEntry]:
    """The entries under a root: `<root>.plugins`, and the bare group as builtins."""
    found = [_entry(p, root + SUFFIX, Origin.PLUGIN) for p in snapshot.points(root + SUFFIX)]
    found += [_entry(p, root, Origin.GROUP) for p in snapshot.points(root)]
    found = [_with_requirement(e, root) for e in found] if api else found
    # by path and not by name: a manifest speaks for the copy that it lies beside
    said = {p.dist.path: parts_of(p.dist)[0] for p in _described(snapshot, root)}
    return [told(e, said.get(e.path, {}).get((root, e.key))) for e in found] if said else found


def _described(snapshot: Snapshot, root: str) -> list[EntryPointRow]:
    """One entry point of each distribution that has something under the root, and a manifest."""
    points = (*snapshot.points(root + SUFFIX), *snapshot.points(root))
    # whoever is nobody, or hidden, is not asked
    asked = {p.dist.path: p for p in points if MANIFEST in p.dist.groups and p.dist.name and not p.dist.shadowed_by}
    return list(asked.values())


def _unreadable(registry: Registry, snapshot: Snapshot, root: str, candidates: Iterable[Candidate]) -> list[Broken]:
    found = [broken for point in _described(snapshot, root) for broken in parts_of(point.dist)[1]]
    for entry in (c.entry for c in candidates if c.entry.metadata):
        if why := unfitting(entry, registry.metadata):
            found.append(Broken(entry.dist, entry.path, f"the metadata of {entry.name!r} do not fit: {why}"))
    return found


def _entry(point: EntryPointRow, group: str, origin: Origin) -> PartEntry:
    reference, extras, problem = read_reference(point.value)
    dist = point.dist
    return PartEntry(
        group=group,
        name=point.name,
        reference=sys.intern(reference),
        origin=origin,
        dist=dist.name,
        version=dist.version,
        path=dist.path,
        extras=extras,
        invalid=problem,
        shadowed_by=dist.shadowed_by,
    )


def _with_requirement(entry: PartEntry, root: str) -> PartEntry:
    return msgspec.structs.replace(entry, requires=requirement_on(root.partition(".")[0], entry.path))


def discover(registry: Registry, root: str, *, refresh: bool, strict: bool) -> DiscoveryReport:
    """Read the entry points of one root. Where nothing has changed, the second call does no I/O and gives the same report.

    Raises:
        FactoryError: there is no root to read, or `strict` is set and the report has problems.
    """
    began = time.perf_counter()
    root = root.removesuffix(SUFFIX)
    if not root:
        raise FactoryError(f"{registry.title} has no group: name the root to discover")
    snapshot, policy = installed(refresh=refresh), configured.current()
    if refresh:
        registry.forget_failures()
    place = (snapshot, policy, registry.generation)
    kept = registry.reports.get(root)
    # identity and generation, no I/O: discovering again costs nothing
    if kept is not None and kept[0] is place[0] and kept[1] is place[1] and kept[2] == place[2]:
        report: DiscoveryReport = kept[3]
    else:
        new, gone = registry.discover(root, entries_of(snapshot, root, registry.api))
        report = _report(registry, root, snapshot, new, gone, began)
        registry.reports = {**registry.reports, root: (snapshot, policy, registry.generation, report)}
        _tell_conflicts(registry, report)
    if strict and (problems := report.problems()):
        raise FactoryError(f"{registry.title}: " + "; ".join(problems), code="implementation_failed")
    return report


def _report(
    registry: Registry,
    root: str,
    snapshot: Snapshot,
    new: tuple[PartEntry, ...],
    gone: tuple[PartEntry, ...],
    began: float,
) -> DiscoveryReport:
    candidates: list[Candidate] = []
    conflicts: dict[str, tuple[PartEntry, ...]] = {}
    pending: dict[str, str] = {}
    table = registry.table()
    for key in sorted(table):
        found = registry.candidates(key)
        candidates += (c for c in found if c.entry.path)
        if rivals := undecided(registry, key, found):
            conflicts[key] = rivals
    # only what code chose: a choice in the settings for a name that is not there is told by doctor
    for key, selector in sorted(registry.selected.items()):
        choice = registry.choice(key)
        if choice.winner is None and choice.culprit is None:
            pending[key] = selector
    return DiscoveryReport(
        group=root,
        candidates=tuple(candidates),
        new=new,
        gone=gone,
        conflicts=conflicts,
        pending=pending,
        broken=(*snapshot.broken, *_unreadable(registry, snapshot, root, candidates)),
        hollow=_hollow(snapshot, candidates),
        leftovers=snapshot.leftovers,
        milliseconds=(time.perf_counter() - began) * 1000,
    )


def _hollow(snapshot: Snapshot, candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """The folders that are nobody's and whose name can mean the distribution of one of these candidates."""
    # those of strangers are left to doctor: a program cannot mend a neighbour's folder, and would not
    # start under `strict`
    dists = {c.entry.dist for c in candidates}
    return tuple(h.path for h in snapshot.hollow if not dists.isdisjoint(h.readings))


def undecided(registry: Registry, key: str, candidates: list[Candidate]) -> tuple[PartEntry, ...]:
    """The rivals for a name that only the order of their names decides: no choice was made, and no priority is higher."""
    rivals = rivals_of(candidates)
    choice = registry.choice(key, candidates)
    # a choice of what is not there decides nothing
    chosen = choice.winner is not None and choice.reason in (Reason.CODE, Reason.ENVIRONMENT, Reason.CONFIG)
    if not rivals or chosen:
        return ()
    policy = configured.current()
    return () if leads(policy, [c.entry for c in candidates if c.usable and c.entry.is_plugin]) else rivals


def rivals_of(candidates: list[Candidate]) -> tuple[PartEntry, ...]:
    """The plugins that want the same name, or differ from another candidate's name only in case or dashes."""
    usable = [c.entry for c in candidates if c.usable]
    # a plugin beside a builtin is no conflict: to stand in for it is what a plugin is for
    plugins = [e for e in usable if e.is_plugin]
    if len(plugins) > 1:
        return tuple(plugins)
    return tuple(usable) if len({e.name for e in usable}) > 1 else ()


def _tell_conflicts(registry: Registry, report: DiscoveryReport) -> None:
    # told once per process, however often it is discovered
    for key, rivals in report.conflicts.items():
        with registry.lock:
            told = (key, rivals) in registry.told
            registry.told = registry.told | {(key, rivals)}
        if not told:
            names = ", ".join(e.label for e in rivals)
            log.warning("%s %r is claimed by %s; `bema plugins ls` shows who wins", registry.title, key, names)


def rows(registry: Registry, key: str, *, detail: bool = False) -> list[dict[str, Any]]:
    """The candidates of one name as rows to show, in their order. Nothing is imported."""
    candidates = [c for c in registry.candidates(key) if detail or c.state not in (PartState.SHADOWED, PartState.GONE)]
    choice = registry.choice(key, registry.candidates(key))
    found = []
    for candidate in candidates:
        entry = candidate.entry
        row = {"name": entry.class_name, "is_plugin": entry.is_plugin, "is_selected": entry == choice.winner}
        if detail:
            row |= _detail(registry, candidate, choice.reason.value if entry == choice.winner else "")
        found.append(row)
    return found


def _detail(registry: Registry, candidate: Candidate, reason: str) -> dict[str, Any]:
    entry = candidate.entry
    outcome = registry.loader.outcomes.get(entry)
    return {
        "id": entry.id,
        "reference": entry.reference,
        "origin": entry.origin.value,
        "dist": entry.dist,
        "version": entry.version,
        "path": entry.path,
        "source": source_of(entry.path) if entry.path else "code",
        "description": entry.description,
        "priority": configured.current().priority_of(entry),
        "state": candidate.state.value,
        "why": candidate.why,
        "reason": reason,
        "error": outcome.trace if outcome is not None else "",
    }


def info(registry: Registry, name: Any) -> PartInfo:
    """What is known of the winner of a name; raises what `Factory.info` names."""
    choice = registry.choice(key_of(name))
    if choice.winner is None:
        raise registry.error(key_of(name), choice)
    return _info(registry, choice.winner)


def _info(registry: Registry, entry: PartEntry) -> PartInfo:
    try:
        metadata = typed(entry, registry.metadata)
    except msgspec.ValidationError as error:
        raise FactoryError(f"{registry.title}: the metadata of {entry.label} do not fit: {error}") from error
    return PartInfo(
        name=entry.name,
        reference=entry.reference,
        is_plugin=entry.is_plugin,
        dist=entry.dist,
        version=entry.version,
        description=entry.description,
        priority=configured.current().priority_of(entry),
        metadata=metadata,
    )


def name_of(registry: Registry, implementation: type) -> str:
    """The name of a class; of several the one that it wins, then the first."""
    found = [
        (registry.choice(key).winner != entry, entry.name)
        for key, entries in registry.table().items()
        for entry in entries
        if registry.class_of(entry) is implementation or entry.reference == reference_of(implementation)
    ]
    if not found:
        raise UnknownImplementation(f"{registry.title}: {reference_of(implementation)} stands under no name")
    return min(found)[1]


def unknown(registry: Registry, name: Any) -> str:
    """A sentence on an unknown name, with those that there are and the nearest one."""
    table = registry.table()
    if found := table.get(key_of(name)):
        # the name is there: naming it again as the nearest one helps nobody
        return f"nothing is there for {name!r}: " + "; ".join(map(broke, registry.candidates(found[0].key)))
    names = sorted({found[0].name for found in table.values()})
    return f"nothing is named {name!r}; it has {', '.join(names) or 'nothing'}{nearest(key_of(name), names)}"


_FAILED = frozenset({PartState.FAILED, PartState.INVALID, PartState.WRONG_TYPE})
_REJECTED = frozenset({PartState.NOT_ALLOWED, PartState.INCOMPATIBLE})


class DiscoveryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one `discover_plugins` found. Problems are in here; a caller who wants them raised asks for `strict=True`."""

    group: str
    candidates: tuple[Candidate, ...] = ()
    new: tuple[PartEntry, ...] = ()
    gone: tuple[PartEntry, ...] = ()
    conflicts: Mapping[str, tuple[PartEntry, ...]] = {}
    pending: Mapping[str, str] = {}  # name -> what was selected for it and is not there
    broken: tuple[Broken, ...] = ()  # entry_points.txt files, of anybody, that cannot be read whole
    hollow: tuple[str, ...] = ()  # metadata folders of nobody, by whose name a candidate's distribution could be meant
    leftovers: tuple[str, ...] = ()
    milliseconds: float = 0.0

    def of(self, *states: PartState) -> tuple[Candidate, ...]:
        """The candidates in one of these states."""
        return tuple(c for c in self.candidates if c.state in states)

    @property
    def found(self) -> int:
        """The number of candidates."""
        return len(self.candidates)

    @property
    def rejected(self) -> tuple[Candidate, ...]:
        """The candidates that the policy or the interface's version rules out."""
        return self.of(*_REJECTED)

    @property
    def failed(self) -> tuple[Candidate, ...]:
        """The candidates that cannot be imported, or are not what the factory makes."""
        return self.of(*_FAILED)

    @property
    def shadowed(self) -> tuple[Candidate, ...]:
        """The candidates of which another copy comes first on the path."""
        return self.of(PartState.SHADOWED)

    def problems(self) -> list[str]:
        """One sentence per problem: `strict` discovery raises where there is one."""
        # setuptools leaves an egg-info in every project that it installs editable; it hides nothing
        hidden = [c for c in self.shadowed if not is_own_leftover(c.entry.path, c.entry.shadowed_by)]
        sentences = [f"{c.entry.label}: {c.why}" for c in (*self.rejected, *self.failed, *hidden)]
        sentences += [f"{b.dist or b.path}: {b.problem}" for b in self.broken]
        sentences += [f"{path}: it has no METADATA that names it, and hides nobody" for path in self.hollow]
        for name, rivals in self.conflicts.items():
            sentences.append(f"{name!r} is claimed by {', '.join(e.label for e in rivals)}")
        return sentences + [
            f"{name!r}: {selector!r} is selected and not there" for name, selector in self.pending.items()
        ]

    def as_json(self) -> dict[str, Any]:
        """The report as plain data; candidates stand as their ids, times are in milliseconds."""
        return {
            "group": self.group,
            "found": self.found,
            "new": [e.id for e in self.new],
            "gone": [e.id for e in self.gone],
            "rejected": [c.entry.id for c in self.rejected],
            "failed": [c.entry.id for c in self.failed],
            "shadowed": [c.entry.path for c in self.shadowed],
            "conflicts": {name: [e.id for e in rivals] for name, rivals in self.conflicts.items()},
            "pending": dict(self.pending),
            "broken": [msgspec.structs.asdict(b) for b in self.broken],
            "hollow": list(self.hollow),
            "leftovers": list(self.leftovers),
            "milliseconds": round(self.milliseconds, 3),
        }

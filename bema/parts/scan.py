"""Scan: one pass over the metadata folders on `sys.path`, which reads the entry points of all groups at once.

Law: nothing is imported, one broken distribution never hides another, and the answer is the one `importlib.metadata`
gives (first copy of a distribution on the path wins), in an order that no file system decides. A second question does no
I/O until `sys.path` changes or somebody asks for a refresh. `importlib.metadata` itself is imported only where a zip file
or a foreign finder keeps distributions that folders do not show.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bema.parts.entries import canonical

Groups = dict[str, list[tuple[str, str]]]
_STDLIB_FINDERS = frozenset({"PathFinder", "MetadataPathFinder"})


class Distribution(NamedTuple):
    """One metadata folder. `name` is canonical, and empty where METADATA is missing: nobody knows whose it is."""

    name: str
    version: str
    path: str
    groups: Groups
    shadowed_by: str = ""


class Broken(NamedTuple):
    """An `entry_points.txt` that cannot be read whole: its distribution, its path and the problem."""

    dist: str
    path: str
    problem: str


class EntryPointRow(msgspec.Struct, frozen=True):
    """One line of one entry_points.txt."""

    name: str
    value: str
    dist: Distribution


class Snapshot(msgspec.Struct, frozen=True):
    """Everything that one pass found."""

    groups: dict[str, tuple[EntryPointRow, ...]]
    distributions: dict[str, Distribution]
    broken: tuple[Broken, ...]
    shadowed: tuple[Distribution, ...]
    leftovers: tuple[str, ...]
    milliseconds: float

    def points(self, group: str) -> tuple[EntryPointRow, ...]:
        return self.groups.get(group, ())


def parse(text: str) -> tuple[Groups, list[str]]:
    """The groups of an entry_points.txt, and a sentence for each line that does not belong in one."""
    groups: Groups = {}
    problems: list[str] = []
    current: list[tuple[str, str]] | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        # a header may come twice: its lines add up, as in importlib.metadata
        if line[0] == "[" and line[-1] == "]":
            current = groups.setdefault(line[1:-1].strip(), [])
            continue
        name, equals, value = line.partition("=")
        if current is None or not equals or not name.strip():
            problems.append(f"line {number}: {line!r} is not `name = module:Class` in a group")
        else:
            current.append((name.strip(), value.strip()))
    return groups, problems


class _Pass:
    """One pass in progress."""

    def __init__(self) -> None:
        self.first: dict[str, Distribution] = {}
        self.nameless: list[Distribution] = []
        self.broken: list[Broken] = []
        self.shadowed: list[Distribution] = []
        self.leftovers: list[str] = []

    def folder(self, directory: str) -> None:
        """Read all metadata folders of one directory of `sys.path`."""
        try:
            # sorted: of two copies in one folder the file system must not choose
            names = sorted(os.listdir(directory or "."))  # noqa: PTH208 - this loop is the cost of every start
        except NotADirectoryError:
            # a zip file or a wheel on the path
            self.foreign(lambda: _import_metadata().distributions(path=[directory]))
            return
        except OSError:
            return
        for name in names:
            if name[-10:] == ".dist-info":
                kind, stem = "dist-info", name[:-10]
            elif name[-9:] == ".egg-info":
                kind, stem = "egg-info", name[:-9]
            else:
                continue
            # pip renames what it is about to replace; a crash leaves it behind, entry points and all
            if name[0] == "~":
                self.leftovers.append(f"{directory}/{name}")
                continue
            self.metadata(f"{directory or '.'}/{name}", kind, stem)

    def metadata(self, path: str, kind: str, stem: str) -> None:
        dist, _, version = stem.partition("-")
        groups: Groups = {}
        try:
            with open(path + "/entry_points.txt", "rb", buffering=0) as file:  # noqa: PTH123 - as above
                content = file.read()
        except OSError:
            pass
        else:
            groups = self.read(content, dist, path)
            dist, version = _identity(path, kind, dist, version)
        self.add(Distribution(canonical(dist), version, path, groups))

    def read(self, content: bytes, dist: str, path: str) -> Groups:
        try:
            groups, problems = parse(content.decode())
        except UnicodeDecodeError as error:
            groups, problems = {}, [f"byte {error.start} is not UTF-8; none of it is used"]
        self.broken.extend(Broken(canonical(dist), path, problem) for problem in problems)
        return groups

    def add(self, found: Distribution) -> None:
        if not found.name:
            self.nameless.append(found)
            return
        first = self.first.setdefault(found.name, found)
        if first is not found:
            self.shadowed.append(found._replace(shadowed_by=first.path))

    def foreign(self, distributions: Callable[[], Iterable[Any]]) -> None:
        """Distributions that only `importlib.metadata` can read."""
        try:
            for dist in distributions():
                text = dist.read_text("entry_points.txt") or ""
                name, path = str(dist.name or ""), str(getattr(dist, "_path", dist))
                groups = self.read(text.encode(), name, path)
                self.add(Distribution(canonical(name), str(dist.version or ""), path, groups))
        except Exception as error:  # noqa: BLE001 - somebody else's finder may raise anything; it must not hide the rest
            self.broken.append(Broken("", "", f"a finder of distributions raised {error!r}"))

    def snapshot(self, began: float) -> Snapshot:
        groups: dict[str, list[EntryPointRow]] = {}
        for dist in [*self.first.values(), *self.nameless, *self.shadowed]:
            for group, pairs in dist.groups.items():
                points = groups.setdefault(group, [])
                points.extend(EntryPointRow(name, value, dist) for name, value in dict.fromkeys(pairs))
        return Snapshot(
            groups={group: tuple(sorted(points, key=_order)) for group, points in groups.items()},
            distributions=self.first,
            broken=tuple(sorted(self.broken)),
            shadowed=tuple(sorted(self.shadowed, key=lambda d: (d.name, d.path))),
            leftovers=tuple(sorted(self.leftovers)),
            milliseconds=(time.perf_counter() - began) * 1000,
        )


def _order(point: EntryPointRow) -> tuple[str, str, str, bool, str]:
    dist = point.dist
    return point.name, dist.name, point.value, bool(dist.shadowed_by), dist.path


def _identity(path: str, kind: str, dist: str, version: str) -> tuple[str, str]:
    """Name and version; the folder's name says both for a wheel, an egg-info in development says neither surely."""
    if kind == "dist-info":
        # the folder's name carries both, so METADATA (the dearest part of a scan) is not parsed
        return (dist, version) if os.access(path + "/METADATA", os.R_OK) else ("", "")
    fields = headers(path, "PKG-INFO")
    return next(iter(fields.get("name", [])), ""), next(iter(fields.get("version", [])), "")


def headers(path: str, file: str = "METADATA") -> dict[str, list[str]]:
    """The header fields of a distribution's metadata, names in lower case; empty where there is none."""
    fields: dict[str, list[str]] = {}
    try:
        text = (Path(path) / file).read_text("utf-8", "replace")
    except OSError:
        return fields
    for line in text.splitlines():
        if not line:
            break
        name, colon, value = line.partition(":")
        if colon and line[0] not in " \t":
            fields.setdefault(name.lower(), []).append(value.strip())
    return fields


def _import_metadata() -> Any:
    return importlib.import_module("importlib.metadata")


def _ask(finder: Any) -> Iterable[Any]:
    found: Iterable[Any] = finder.find_distributions(_import_metadata().DistributionFinder.Context())
    return found


def scan() -> Snapshot:
    """One pass, uncached."""
    began = time.perf_counter()
    current = _Pass()
    # one folder under two names (a link, the working directory) is not a second copy
    places: dict[str, str] = {}
    for place in sys.path:
        places.setdefault(os.path.realpath(place), place)
    for directory in places.values():
        current.folder(directory)
    # other finders may know distributions that no folder shows; ours come first, as theirs would be last
    for finder in sys.meta_path:
        name = getattr(finder, "__name__", type(finder).__name__)
        if name not in _STDLIB_FINDERS and hasattr(finder, "find_distributions"):
            current.foreign(partial(_ask, finder))
    return current.snapshot(began)


_lock = threading.Lock()
_kept: tuple[tuple[Any, ...], Snapshot] | None = None


def installed(*, refresh: bool = False) -> Snapshot:
    """What is installed, from the kept snapshot where the path is still the same."""
    global _kept
    # the identity of a finder is enough: nobody changes one in place
    here = (*sys.path, *map(id, sys.meta_path))
    kept = _kept
    if kept is not None and kept[0] == here and not refresh:
        return kept[1]
    if refresh:
        # a folder that was missing, or older than its modules, is kept as such by the import system
        importlib.invalidate_caches()
    fresh = scan()
    with _lock:
        if _kept is kept or refresh:
            _kept = (here, fresh)
        return _kept[1] if _kept and _kept[0] == here else fresh

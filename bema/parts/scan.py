"""Scan: one pass over the metadata folders on `sys.path`, which reads the entry points of all groups at once.

Law: nothing is imported, one broken distribution never hides another, and the first whole copy of a distribution on the path
wins, in an order that no file system decides. Where folders and METADATA agree this is the answer of `importlib.metadata`,
which goes by the folder's name; a folder's name is a claim, and METADATA is who somebody is. A second question does no
I/O until `sys.path` changes or somebody asks for a refresh. `importlib.metadata` itself is imported only where a zip file
or a foreign finder keeps distributions that folders do not show.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from bema.parts.entries import canonical
from bema.parts.metadata import content_of, has_one_reading, identified, identity, readings

Groups = dict[str, list[tuple[str, str]]]
_SCRIPTS = frozenset({"console_scripts", "gui_scripts"})
_STDLIB_FINDERS = frozenset({"PathFinder", "MetadataPathFinder"})


class Distribution(msgspec.Struct, frozen=True):
    """One metadata folder. `name` is canonical, and empty where no METADATA gives one: nobody knows whose it is."""

    name: str
    version: str
    path: str
    groups: Groups
    shadowed_by: str = ""
    read: bool = True  # False: the name is the folder's, whose METADATA nothing depended on


class Hollow(msgspec.Struct, frozen=True, order=True):
    """A metadata folder that is nobody's, with the names that its own name can mean."""

    path: str
    readings: tuple[str, ...]


class Broken(msgspec.Struct, frozen=True, order=True):
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
    hollow: tuple[Hollow, ...]
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


class _Found(msgspec.Struct):
    """One metadata folder, and who it is where that was asked."""

    path: str
    kind: str
    stem: str
    groups: Groups
    name: str | None = None  # None: METADATA was not read
    version: str = ""

    @property
    def claim(self) -> str:
        """Its name, else what its folder's name claims."""
        return canonical(self.stem.partition("-")[0]) if self.name is None else self.name

    def ask(self) -> None:
        """Read who it is, where that was not done."""
        if self.name is None:
            self.name, self.version = identity(self.path)


class _Pass:
    """One pass in progress."""

    def __init__(self) -> None:
        self.found: list[_Found] = []
        self.first: dict[str, Distribution] = {}
        self.nameless: list[Distribution] = []
        self.hollow: list[Hollow] = []
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
            # of thousands of names a few hundred are of metadata
            if name[-5:].lower() != "-info":
                continue
            stem, dot, kind = name.rpartition(".")
            # an egg on the path keeps its metadata in EGG-INFO, and its own name is what a folder's would be
            if not dot and name.lower() == "egg-info" and directory.lower().endswith(".egg"):
                stem, kind = os.path.basename(directory)[:-4], "egg-info"  # noqa: PTH119
            elif not dot:
                continue
            kind = kind.lower()
            if kind not in ("dist-info", "egg-info"):
                continue
            # pip renames what it is about to replace; a crash leaves it behind, entry points and all
            if name[0] == "~":
                self.leftovers.append(f"{directory}/{name}")
                continue
            self.metadata(f"{directory or '.'}/{name}", kind, stem)

    def metadata(self, path: str, kind: str, stem: str) -> None:
        groups: Groups = {}
        try:
            content = content_of(path + "/entry_points.txt")
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            self.broken.append(Broken(identity(path)[0], path, f"entry_points.txt cannot be read: {error.strerror}"))
        else:
            groups = self.read(content, path)
        self.found.append(_Found(path, kind, stem, groups))

    def read(self, content: bytes, path: str, name: str | None = None) -> Groups:
        try:
            groups, problems = parse(content.decode())
        except UnicodeDecodeError as error:
            groups, problems = {}, [f"byte {error.start} is not UTF-8; none of it is used"]
        if problems:
            whose = identity(path)[0] if name is None else name
            self.broken.extend(Broken(whose, path, problem) for problem in problems)
        return groups

    def identify(self) -> None:
        """Say who every folder is, in the order of the path.

        METADATA is the dearest part of a scan. It is read where trust depends on it: of what has entry points that a factory
        could ask for, of a folder whose name has more than one reading, and of one that would hide another or such a
        distribution.
        """
        # two rounds, because who has entry points must be known before it is clear whom a bare folder could
        # hide; one round would read the METADATA of all 500 to ask 50
        claims: list[str] = []
        wanted: set[str] = set()
        for found in self.found:
            offers = found.groups and _offers(found.groups)
            if offers or not has_one_reading(found.stem, found.kind):
                found.ask()
            claims.append(found.claim)
            if offers and found.name:
                wanted.add(found.name)
        wanted.update(claim for claim, count in Counter(claims).items() if count > 1)
        for found, claim in zip(self.found, claims, strict=True):
            if claim in wanted:
                found.ask()
            self.add(found, claim)

    def add(self, found: _Found, claim: str) -> None:
        name, version = found.name, found.version
        if name is None:
            name, version = claim, found.stem.partition("-")[2]
        this = Distribution(name, version, found.path, found.groups, read=found.name is not None)
        if not name:
            self.nameless.append(this)
            self.hollow.append(Hollow(found.path, tuple(readings(found.stem))))
            return
        first = self.first.setdefault(name, this)
        # a link to the first one is no second copy
        if first is not this and os.path.realpath(first.path) != os.path.realpath(this.path):
            self.shadowed.append(msgspec.structs.replace(this, shadowed_by=first.path))

    def foreign(self, distributions: Callable[[], Iterable[Any]]) -> None:
        """Distributions that only `importlib.metadata` can read."""
        try:
            for dist in distributions():
                self._foreign(dist)
        except Exception as error:  # noqa: BLE001 - somebody else's finder may raise anything; it must not hide the rest
            self.broken.append(Broken("", "", f"a finder of distributions raised {_told(error)}"))

    def _foreign(self, dist: Any) -> None:
        path = str(getattr(dist, "_path", dist)).rstrip("/")
        try:
            name, version = identified(lambda file: (dist.read_text(file) or "").encode())
            content = (dist.read_text("entry_points.txt") or "").encode()
        except Exception as error:  # noqa: BLE001 - as above: one distribution of a finder must not hide its others
            self.broken.append(Broken("", path, f"its metadata cannot be read: {_told(error)}"))
            return
        stem = os.path.basename(path).rpartition(".")[0]  # noqa: PTH119 - not a path of this file system
        self.found.append(_Found(path, "dist-info", stem, self.read(content, path, name), name, version))

    def snapshot(self, began: float) -> Snapshot:
        self.identify()
        groups: dict[str, list[EntryPointRow]] = {}
        # what is nobody's or shadowed keeps its rows: left out, it could not be listed with the reason
        for dist in [*self.first.values(), *self.nameless, *self.shadowed]:
            for group, pairs in dist.groups.items():
                points = groups.setdefault(group, [])
                points.extend(EntryPointRow(name, value, dist) for name, value in dict.fromkeys(pairs))
        return Snapshot(
            groups={group: tuple(sorted(points, key=_order)) for group, points in groups.items()},
            distributions=self.first,
            broken=tuple(sorted(self.broken)),
            shadowed=tuple(sorted(self.shadowed, key=lambda d: (d.name, d.path))),
            hollow=tuple(sorted(self.hollow)),
            leftovers=tuple(sorted(self.leftovers)),
            milliseconds=(time.perf_counter() - began) * 1000,
        )


def _offers(groups: Groups) -> bool:
    # most distributions have scripts, which no factory loads
    return not _SCRIPTS.issuperset(groups)


def _order(point: EntryPointRow) -> tuple[str, str, str, bool, str]:
    dist = point.dist
    return point.name, dist.name, point.value, bool(dist.shadowed_by), dist.path


def _told(error: Exception) -> str:
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 - a repr of somebody else's
        return type(error).__name__


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
    # a second copy would be a warning that nobody can act on
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
    # of two threads that scanned at once the first to end is kept, so that equal questions meet one
    # snapshot: the reports of factories are kept by its identity
    with _lock:
        if _kept is kept or refresh:
            _kept = (here, fresh)
        return _kept[1] if _kept and _kept[0] == here else fresh

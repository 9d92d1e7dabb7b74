"""Files: the documents that a run is about, from names, folders and patterns.

Law: what is named is looked at, whatever it is. Of a folder only package documents are: it holds other people's files too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from glob import glob, has_magic
from pathlib import Path

from bema.packages.nodes import Mapping, Scalar
from bema.packages.opackage import OPackage
from bema.packages.reader import Document, examine_all, examine_bytes

SUFFIXES = (".yaml", ".yml", ".json")
_FIELDS = frozenset(OPackage.__struct_fields__)
# the lists that other kinds of documents rarely have at their root
_MARKS = frozenset(("classes", "functions", "deployments"))
# of a text that cannot be read: whether a key of a package stands at the beginning of a line, or within JSON
_MARK_LINES = re.compile(
    r"""^(?:["'](?:classes|functions)["']|[ \t]+"(?:classes|functions)"|(?:classes|functions)) *:""", re.M
)
# manifests of JavaScript and PHP have a name, a version and dependencies, as a small package does
_MANIFESTS = re.compile(r"(?:package|package-lock|tsconfig.*|lerna|composer)\.json|pnpm-.*\.yaml")
_SKIPPED = frozenset(("node_modules", "__pycache__", "site-packages"))


def expanded(names: Iterable[Path]) -> list[Path]:
    """The files that are meant, each once: a folder for the documents below it, a pattern for what it matches."""
    found: dict[Path, Path] = {}
    for name in names:
        for file in _meant(name):
            found.setdefault(file.absolute(), file)
    return list(found.values())


def _meant(name: Path) -> list[Path]:
    if name.is_dir():
        return list(documents_below(name)) or [name]
    if has_magic(str(name)) and not name.exists():
        # Path.glob takes no pattern that begins at the root
        matched = sorted(Path(match) for match in glob(str(name), recursive=True))  # noqa: PTH207
        return [file for file in matched if file.is_file() and file.suffix.lower() in SUFFIXES] or [name]
    return [name]


def documents_below(folder: Path) -> Iterator[Path]:
    """Package documents in a folder and those below, in order of their paths; hidden folders are left out."""
    try:
        # sorted, because a file system's order is not the same on two machines
        entries = sorted(folder.iterdir())
    except OSError:  # of a folder that cannot be read nothing is known
        return
    for here in entries:
        if here.name.startswith(".") or here.name in _SKIPPED:
            continue
        if here.is_dir() and not here.is_symlink():  # a link may lead back up
            yield from documents_below(here)
        elif _may_be_package(here) and _is_package(examine_all([here])[0]):
            yield here


def _may_be_package(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in SUFFIXES and not _MANIFESTS.fullmatch(file.name)


def _is_package(document: Document) -> bool:
    """Whether a file means to be a package, also one with mistakes."""
    root = document.root
    if not isinstance(root, Mapping):
        return document.package is None and _MARK_LINES.search(document.source.text) is not None
    keys = {key.value for key, _ in root.pairs if isinstance(key, Scalar)}
    return bool(keys & _MARKS) or ("name" in keys and keys <= _FIELDS)


def is_json(data: bytes) -> bool:
    """What has no name is JSON where it reads as JSON: the platform reads the two differently."""
    return data.lstrip().startswith(b"{") and examine_bytes(data, "", is_json=True).root is not None

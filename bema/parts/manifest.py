"""Manifest: what a distribution says of its plugins beyond their names, read from a file of its package without an import.

A distribution names the file by an entry point of the group `bema.manifest`, as `package:file.toml`:

    [[part]]
    group = "app.endpoints"     # the root of the factory's groups
    name = "chat"
    description = "Chat completions, streamed."
    priority = 10               # among the plugins of a name; the operator's [plugins.priority] comes first
    metadata = { streams = true }

Laws: a manifest speaks of its own distribution's entry points only. A manifest that cannot be read costs its descriptions and
its priorities, and not the plugins; the report says so.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec

from bema.parts.entries import PartEntry, key_of
from bema.parts.metadata import read
from bema.parts.scan import Broken, Distribution

GROUP = "bema.manifest"


class ManifestPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a manifest says of one entry point."""

    group: str
    name: str
    description: str = ""
    priority: int = 0
    metadata: dict[str, Any] = {}


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    part: tuple[ManifestPart, ...] = ()


class PartInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one implementation without importing it. `metadata` is of the factory's type where it has one."""

    name: str
    reference: str
    is_plugin: bool
    dist: str = ""
    version: str = ""
    description: str = ""
    priority: int = 0
    metadata: Any = None


def parts_of(dist: Distribution) -> tuple[dict[tuple[str, str], ManifestPart], list[Broken]]:
    """The parts that the manifests of a distribution name, by group and key, and what is wrong with the manifests."""
    parts: dict[tuple[str, str], ManifestPart] = {}
    broken: list[Broken] = []
    for _, value in dist.groups.get(GROUP, ()):
        try:
            manifest = msgspec.toml.decode(_content(dist.path, value), type=_Manifest)
            # of two tables for one entry point the later holds
            parts |= {(part.group, key_of(part.name)): part for part in manifest.part}
        except (OSError, ValueError, ImportError, msgspec.MsgspecError) as error:
            broken.append(Broken(dist.name, dist.path, f"its manifest {value!r} cannot be read: {error}"))
    return parts, broken


def _content(path: str, value: str) -> bytes:
    # the form of an entry point's reference, because installers and other tools check that form
    package, colon, file = value.partition(":")
    top, *rest = package.split(".")
    # a file of the package, and of nothing beside it
    if (
        not colon
        or not all(map(str.isidentifier, (top, *rest)))
        or ".." in Path(file).parts
        or Path(file).is_absolute()
    ):
        raise ValueError("it is not `package:file.toml`")
    inner = "/".join((*rest, file))
    try:
        return read(str(Path(path).parent / top), inner)
    except OSError:
        # an editable install keeps its code elsewhere; to find a top-level package runs nothing of it
        spec = importlib.util.find_spec(top)
        places = spec.submodule_search_locations if spec is not None else None
        if not places:
            raise
        return read(next(iter(places)), inner)


def told(entry: PartEntry, part: ManifestPart | None) -> PartEntry:
    """The entry with what its manifest says."""
    if part is None:
        return entry
    # as text: an entry is a key of tables, and a dict is none
    metadata = msgspec.json.encode(part.metadata).decode() if part.metadata else ""
    return msgspec.structs.replace(entry, description=part.description, priority=part.priority, metadata=metadata)


def unfitting(entry: PartEntry, kind: Any) -> str:
    """Why the metadata of an entry are not of the factory's type; empty where they are, or where there is no type."""
    try:
        typed(entry, kind)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


def typed(entry: PartEntry, kind: Any) -> Any:
    """The metadata of an entry as the factory's type, or as plain data; `msgspec.ValidationError` where they do not fit.

    Where nothing is said: None for a type, which may need what nobody gave, and an empty dict for plain data.
    """
    if not entry.metadata:
        return {} if kind is None else None
    return msgspec.json.decode(entry.metadata, type=Any if kind is None else kind)

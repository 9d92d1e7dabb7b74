"""Provenance: where an installed distribution came from, whether its files still match its RECORD, and the lock file.

The lock file lists the plugins that were installed when an operator agreed to them; `bema plugins lock` writes it. Nothing
is imported here.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from bema.core.errors import Refused
from bema.parts.entries import PartEntry, canonical
from bema.parts.metadata import headers, read
from bema.parts.policy import Locked


def record_digest(path: str) -> str:
    """SHA-256 of a distribution's RECORD in hex; empty where it has none."""
    try:
        return hashlib.sha256(read(path, "RECORD")).hexdigest()
    except OSError:
        return ""


def source_of(path: str) -> str:
    """`index`, `editable URL`, `vcs URL` or `file URL`, from direct_url.json (PEP 610)."""
    if path.endswith(".egg-info"):
        return "egg-info"
    try:
        direct = msgspec.json.decode(read(path, "direct_url.json"))
        kind = "vcs" if "vcs_info" in direct else "file"
        if direct.get("dir_info", {}).get("editable"):
            kind = "editable"
        return f"{kind} {direct['url']}"
    except (OSError, ValueError, KeyError, AttributeError):
        return "index"


def is_editable(path: str) -> bool:
    """Whether the code of a distribution lies outside of what its RECORD covers."""
    return source_of(path).startswith(("editable ", "egg-info"))


def project_of(path: str) -> Path:
    """The folder of an editable project; an egg-info lies in it, or in its `src`."""
    if path.endswith(".egg-info"):
        home = Path(path).parent
        return home.parent if home.name == "src" else home
    return Path(unquote(urlsplit(source_of(path).partition(" ")[2]).path))


def is_own_leftover(path: str, first: str) -> bool:
    """Whether a copy is the egg-info that a build left in the very project whose editable install comes first."""
    return path.endswith(".egg-info") and is_editable(first) and project_of(path) == project_of(first)


def _files(path: str) -> dict[Path, str]:
    """Every file of a RECORD by its resolved path, with its `algorithm=digest`."""
    try:
        lines = read(path, "RECORD").decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    # only the first of a row's three fields may hold a comma, and is in quotes then
    rows = [line.rsplit(",", 2) for line in lines if line.count(",") > 1]
    # resolved, because a RECORD may climb (`../../../bin/tool`), and a venv may be a link
    home = Path(path).parent
    return {(home / _unquoted(file)).resolve(): digest for file, digest, _ in rows}


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if field[:1] == '"' else field


def ownership_problem(entry: PartEntry) -> str:
    """Why the module of an entry is not a file of the distribution that names it; empty when it is.

    Looks up the top-level package only: finding a submodule would run its parents.
    """
    # its code lies where the developer works, of which no RECORD tells
    if is_editable(entry.path):
        return ""
    # find_spec of a.b.c would import a and a.b
    top = entry.reference.partition(":")[0].partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError) as error:
        return f"{top} cannot be found: {error}"
    if spec is None:
        return ""  # the import itself will say so better
    found = [Path(spec.origin)] if spec.origin and spec.has_location else []
    places = found or [Path(place) for place in spec.submodule_search_locations or ()]
    # a namespace package has folders and no file: one of them must hold files of the distribution
    files = _files(entry.path)
    owned = any(place.resolve() in files or _is_parent(place.resolve(), files) for place in places)
    return (
        ""
        if owned
        else f"{top} would be imported from {places[0] if places else 'nowhere'}, not a file of {entry.dist}"
    )


def _is_parent(place: Path, files: dict[Path, str]) -> bool:
    return any(place in file.parents for file in files)


def tampered(path: str) -> str:
    """The first file whose content is not what RECORD says; empty when all are."""
    for file, expected in sorted(_files(path).items()):
        algorithm, _, digest = expected.partition("=")
        # RECORD itself has no digest, and compiled files may have none (recording installed projects, PEP 376 and 627)
        if not digest or algorithm not in hashlib.algorithms_guaranteed:
            continue
        try:
            actual = (
                base64.urlsafe_b64encode(hashlib.new(algorithm, read(str(file.parent), file.name)).digest())
                .rstrip(b"=")
                .decode()
            )
        except OSError:
            return str(file)
        if actual != digest:
            return str(file)
    return ""


def requirement_on(project: str, path: str) -> str:
    """The versions of `project` that a distribution requires; empty for any."""
    # dependencies with a marker hold only sometimes (PEP 508), so they say nothing of the interface
    for line in headers(path).get("requires-dist", []):
        requirement, _, marker = line.partition(";")
        name = requirement.strip()
        length = next((i for i, c in enumerate(name) if not (c.isalnum() or c in "._-")), len(name))
        if not marker.strip() and canonical(name[:length]) == canonical(project):
            return name[length:].strip(" ()")
    return ""


def requirements_of_extra(extra: str, path: str) -> list[str]:
    """The distributions that an extra of a distribution asks for."""
    found = []
    for line in headers(path).get("requires-dist", []):
        requirement, _, marker = line.partition(";")
        if f"extra=='{extra}'" in marker.replace(" ", "").replace('"', "'"):
            name = requirement.strip()
            length = next((i for i, c in enumerate(name) if not (c.isalnum() or c in "._-")), len(name))
            found.append(canonical(name[:length]))
    return found


class LockFile(msgspec.Struct, frozen=True):
    """Sorted rows, so that two machines with the same plugins write the same bytes."""

    version: int = 1
    plugins: tuple[Locked, ...] = ()


def lockable(entries: Iterable[PartEntry]) -> tuple[LockFile, list[str]]:
    """The lock of these entries, and a sentence for each that cannot be pinned."""
    rows: set[Locked] = set()
    problems: list[str] = []
    for entry in entries:
        digest = record_digest(entry.path)
        if is_editable(entry.path):
            problems.append(f"{entry.label} is editable: its RECORD does not cover its code")
        elif not digest:
            problems.append(f"{entry.label} has no RECORD")
        else:
            rows.add(Locked(entry.group, entry.name, entry.reference, entry.dist, entry.version, digest))
    return LockFile(plugins=tuple(sorted(rows))), sorted(problems)


def encode(lock: LockFile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(lock), indent=2) + b"\n"


def read_lock(path: Path) -> frozenset[Locked]:
    """The rows of a lock file; `Refused` when it is missing or malformed: without it nothing can be trusted."""
    try:
        lock = msgspec.json.decode(path.read_bytes(), type=LockFile)
    except OSError as error:
        raise Refused(
            f"the lock file of plugins cannot be read: {error}", fix="Write one with `bema plugins lock`."
        ) from error
    except msgspec.MsgspecError as error:
        raise Refused(
            f"{path} is not a lock file of plugins: {error}", fix="Write one with `bema plugins lock`."
        ) from error
    # a newer form may say more than this reads
    if lock.version != 1:
        raise Refused(f"{path} is of version {lock.version}; this bema reads version 1")
    return frozenset(lock.plugins)


def differences(locked: Iterable[Locked], now: Iterable[Locked]) -> list[str]:
    """What changed since the lock was written, one sentence each."""
    old, new = ({(r.group, r.name, r.dist): r for r in rows} for rows in (locked, now))
    sentences = [
        f"{dist}:{name} ({group}) is not in the lock file" for group, name, dist in sorted(new.keys() - old.keys())
    ]
    sentences += [
        f"{dist}:{name} ({group}) is locked and not installed" for group, name, dist in sorted(old.keys() - new.keys())
    ]
    for key in sorted(old.keys() & new.keys()):
        changed = [f for f in ("value", "version", "record") if getattr(old[key], f) != getattr(new[key], f)]
        if changed:
            sentences.append(
                f"{key[2]}:{key[1]} ({key[0]}) changed its {', '.join(changed)} since the lock was written"
            )
    return sentences

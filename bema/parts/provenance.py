"""Where an installed distribution came from, and whether its files are still what its RECORD says. Reads files only."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from pathlib import Path

import msgspec

from bema.parts.entries import PartEntry, canonical
from bema.parts.scan import headers


def record_digest(path: str) -> str:
    """SHA-256 of a distribution's RECORD in hex; empty where it has none."""
    try:
        return hashlib.sha256((Path(path) / "RECORD").read_bytes()).hexdigest()
    except OSError:
        return ""


def source_of(path: str) -> str:
    """`index`, `editable URL`, `vcs URL` or `file URL`, from direct_url.json (PEP 610)."""
    if path.endswith(".egg-info"):
        return "egg-info"
    try:
        direct = msgspec.json.decode((Path(path) / "direct_url.json").read_bytes())
        kind = "vcs" if "vcs_info" in direct else "file"
        if direct.get("dir_info", {}).get("editable"):
            kind = "editable"
        return f"{kind} {direct['url']}"
    except (OSError, ValueError, KeyError, AttributeError):
        return "index"


def is_editable(path: str) -> bool:
    """Whether its code lies outside what RECORD covers."""
    return source_of(path).startswith(("editable ", "egg-info"))


def _files(path: str) -> dict[Path, str]:
    """Every file of RECORD, resolved, with its `algorithm=digest`."""
    try:
        lines = (Path(path) / "RECORD").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    # only the first of a row's three fields may hold a comma, and is in quotes then
    rows = [line.rsplit(",", 2) for line in lines if line.count(",") > 1]
    home = Path(path).parent
    return {(home / _unquoted(file)).resolve(): digest for file, digest, _ in rows}


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if field[:1] == '"' else field


def ownership_problem(entry: PartEntry) -> str:
    """Why the module of an entry is not a file of the distribution that names it; empty when it is.

    Looks up the top-level package only: finding a submodule would run its parents.
    """
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
        if not digest or algorithm not in hashlib.algorithms_guaranteed:
            continue
        try:
            actual = base64.urlsafe_b64encode(hashlib.new(algorithm, file.read_bytes()).digest()).rstrip(b"=").decode()
        except OSError:
            return str(file)
        if actual != digest:
            return str(file)
    return ""


def requirement_on(project: str, path: str) -> str:
    """The versions of `project` a distribution asks for in its plain dependencies; empty for any."""
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

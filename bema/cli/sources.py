"""What `bema deploy` is given, as a source: a file or folder of this machine, or where code lies elsewhere.

Law: what is here is read here and sent; what is elsewhere is named, and fetched by the platform. Of a folder goes what a repository
would hold: no environments, no caches, and no `.env`, whose secrets nobody means to send.
"""

from __future__ import annotations

import base64
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from bema.core.errors import BemaError, Invalid, TooLarge
from bema.core.limits import Limits
from bema.core.settings import current
from bema.deploy.sources.names import name_of

Source = dict[str, Any]

SKIPPED: Final = frozenset(
    {
        *(".git", ".hg", ".svn", ".DS_Store", ".idea", ".vscode", ".env", ".venv", "venv", ".bema"),
        *("__pycache__", "__pypackages__", ".tox", ".nox", ".mypy_cache", ".ruff_cache", ".pytest_cache"),
        *(".ipynb_checkpoints", "node_modules"),
    }
)
_TAGS: Final = ("pyvenv.cfg", "CACHEDIR.TAG")
"""A folder with one of these is an environment or a cache, whatever its name."""
_GIST: Final = re.compile(r"gist:([0-9A-Za-z]+)(?:@([0-9a-f]+))?(?:#(.+))?")
_GIST_PAGE: Final = re.compile(r"https://gist\.github\.com/(?:[^/]+/)?([0-9a-f]{8,})(?:/([0-9a-f]{40}))?/?")
_GIT: Final = re.compile(r"git\+(https?://[^/#]+/[^#@]*)(?:@([^#]+))?(?:#(.*))?")
_SHA256: Final = re.compile(r"sha256[=:]([0-9a-fA-F]{64})")
_ARCHIVES: Final = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b")
_KINDS: Final = "FILE, DIR, https://..., gist:ID[@REVISION], git+https://...[@REF][#PATH] or s3://BUCKET/KEY"


def source_of(argument: str) -> Source:
    """The field `source` of a request that deploys `argument`.

    Raises:
        Invalid: it is neither a file nor a place, or the file cannot be sent (not_found, syntax_error, usage).
        TooLarge: what lies in the folder is more than a source may be; names its largest file (source_too_large).
    """
    if argument == "-":
        return {"type": "inline", "code": _stdin()}
    if (found := _elsewhere(argument)) is not None:
        return found
    path = Path(argument)
    if path.is_dir():
        return {"type": "files", "files": _files(path, current().limits)}
    content = _read(path)
    if content.startswith(_ARCHIVES) or content[257:262] == b"ustar":
        return {"type": "zip", "data": base64.b64encode(content).decode()}
    return {"type": "inline", "code": _text(content, str(path))}


def source_name(argument: str) -> str:
    """The name that `argument` is deployed under when nobody names it; empty when it holds none."""
    match _elsewhere(argument):
        case None:
            path = Path(argument)
            # a folder may have a dot in its name, and may be called "."
            return name_of(PurePosixPath(f"{path.resolve().name}.d")) if path.is_dir() else name_of(path)
        case {"type": "gist", "id": id}:
            return name_of(PurePosixPath(f"gist-{id[:12]}"))
        case {"path": str(path)}:
            return name_of(PurePosixPath(path))
        case {"url": str(url)}:
            return name_of(
                PurePosixPath(urlsplit(url).path.removesuffix(".tar.gz").rstrip("/") or urlsplit(url).netloc)
            )
        case _:
            return ""


def _elsewhere(argument: str) -> Source | None:
    """The source that lies elsewhere; None for a path of this machine."""
    if argument.startswith("gist:") or _GIST_PAGE.fullmatch(argument):
        found = _GIST.fullmatch(argument) or _GIST_PAGE.fullmatch(argument)
        if found is None:
            raise _usage(f"{argument!r} is not gist:ID[@REVISION][#FILE]")
        return _said("gist", id=found[1], revision=found[2], file=found[3] if found.re is _GIST else None)
    if argument.startswith("git+"):
        if (found := _GIT.fullmatch(_without_user(argument))) is None:
            raise _usage(f"{argument!r} is not git+https://HOST/PATH[@REF][#FOLDER]")
        return _said("git", url=_with_user(found[1], argument), ref=found[2], path=(found[3] or "").strip("/"))
    if argument.startswith("s3://"):
        return _said("s3", url=argument)
    if argument.startswith(("https://", "http://")):
        url, _, fragment = argument.partition("#")
        digest = _SHA256.fullmatch(fragment)
        if fragment and digest is None:
            raise _usage(f"{fragment!r} is not sha256= and 64 digits in hex")
        return _said("url", url=url, sha256=digest and digest[1])
    if "://" in argument:
        raise _usage(f"{argument!r} is no place that code comes from")
    return None


def _said(type: str, **given: str | None) -> Source:
    return {"type": type, **{name: value for name, value in given.items() if value}}


def _without_user(argument: str) -> str:
    return re.sub(r"//[^/@#]*@", "//", argument, count=1)


def _with_user(url: str, argument: str) -> str:
    user = re.match(r"git\+https?://([^/@#]*@)", argument)
    return url.replace("//", f"//{user[1]}", 1) if user else url


def _files(folder: Path, limits: Limits) -> dict[str, Any]:
    # as it travels: bytes that are no text take a third more
    most = min(limits.source_bytes, limits.http_body)
    files: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for path in _walked(folder, folder.resolve()):
        name = path.relative_to(folder).as_posix()
        # before it is read: it may be larger than the memory
        sizes[name] = path.stat().st_size
        _check_sizes(folder, sizes, most, limits.source_files)
        content = _read(path)
        try:
            files[name] = content.decode()
        except UnicodeDecodeError:
            files[name] = {"base64": base64.b64encode(content).decode()}
            sizes[name] = len(files[name]["base64"])
            _check_sizes(folder, sizes, most, limits.source_files)
    return files


def _walked(folder: Path, root: Path) -> Iterator[Path]:
    def refused(error: OSError) -> None:
        raise _unreadable(Path(str(error.filename)), error) from error

    for here, folders, names in os.walk(folder, onerror=refused):
        kept = [name for name in folders if name not in SKIPPED and not _is_tagged(Path(here, name))]
        folders[:] = sorted(kept)
        for name in sorted((*names, *(name for name in kept if Path(here, name).is_symlink()))):
            path = Path(here, name)
            if name in SKIPPED or path.suffix == ".pyc":
                continue
            try:
                is_file = stat.S_ISREG(path.stat().st_mode)
            except OSError as error:
                raise _unreadable(path, error) from error
            if not is_file or not path.resolve().is_relative_to(root):
                raise Invalid(f"{path} is no plain file, or a link that leads out of {folder}", code="usage")
            yield path


def _is_tagged(folder: Path) -> bool:
    return any((folder / tag).exists() for tag in _TAGS)


def _check_sizes(folder: Path, sizes: dict[str, int], most: int, files: int) -> None:
    if len(sizes) > files:
        message = f"{folder} has more than {files} files (source_files)"
        raise TooLarge(message, code="source_too_large", limit=files)
    if sum(sizes.values()) > most:
        largest = max(sizes, key=lambda name: sizes[name])
        message = f"{folder} has more than {most} bytes, of which {largest} has {sizes[largest]}"
        raise TooLarge(message, code="source_too_large", limit=most, largest=largest)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> BemaError:
    fix = "Name a file that can be read, or a place: " + _KINDS + "."
    return Invalid(f"{path}: {error.strerror}", code="not_found", fix=fix)


def _stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise Invalid(f"stdin is not UTF-8: byte {error.start}", code="syntax_error") from error


def _text(content: bytes, name: str) -> str:
    try:
        # a script is a text: what was written on Windows is the same version
        return content.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise Invalid(f"{name} is not UTF-8: byte {error.start}", code="syntax_error") from error


def _usage(message: str) -> BemaError:
    return Invalid(message, code="usage", fix=f"Name {_KINDS}.")

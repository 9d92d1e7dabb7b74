"""From the files of a source to a Bundle: which of them is run, and that they can be laid out on any disk.

Law: whatever kind of source they came from, files pass here, and what is refused is named with its path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from bema.core.errors import Invalid, TooLarge
from bema.core.limits import Limits
from bema.deploy.model.bundle import Bundle
from bema.deploy.sources.project import PYPROJECT, read_project

LONGEST_PATH = 512
"""The most bytes of a path, and"""
LONGEST_NAME = 255
"""of one name in it, as most file systems allow."""


def bundle_of(files: Mapping[str, bytes], limits: Limits, entry: str = "") -> Bundle:
    """The Bundle of these files. `entry` is asked for first, then `[tool.bema] entry_file` of a pyproject.toml.

    Raises:
        Invalid: a path cannot be one (archive_refused), or nothing says what is run (entry_file_missing).
        TooLarge: they are too many, or too large together (source_too_large), or the code is (script_too_large).
    """
    if not files:
        raise Invalid("the source has no files", code="entry_file_missing")
    check_counts(len(files), sum(map(len, files.values())), limits)
    check_paths(files)
    if not entry and PYPROJECT in files:
        entry = read_project(files[PYPROJECT], limits.script_block).entry_file
    bundle = Bundle(files, entry)
    check_script(bundle.script, limits)
    return bundle


def check_script(code: bytes, limits: Limits) -> bytes:
    if len(code) > limits.script:
        message = f"the script has {len(code)} bytes; the limit is {limits.script}"
        raise TooLarge(message, code="script_too_large", limit=limits.script)
    return code


def check_counts(files: int, size: int, limits: Limits) -> None:
    """`TooLarge` (source_too_large) for more files, or more bytes, than a source may have."""
    if files > limits.source_files:
        message = f"the source has more than {limits.source_files} files (source_files)"
        raise TooLarge(message, code="source_too_large", limit=limits.source_files)
    if size > limits.source_bytes:
        message = f"the source has more than {limits.source_bytes} bytes (source_bytes)"
        raise TooLarge(message, code="source_too_large", limit=limits.source_bytes)


def check_paths(paths: Iterable[str]) -> None:
    """`Invalid` (archive_refused) for a path that leaves its folder, or that not every disk can hold beside the others."""
    seen: dict[str, str] = {}
    for path in paths:
        check_path(path)
        # on a disk that ignores case one would replace the other
        if (other := seen.setdefault(path.casefold(), path)) != path:
            raise _refused(path, f"differs from {other!r} in case alone")
    for path in seen.values():
        for folder in PurePosixPath(path).parents:
            if str(folder).casefold() in seen:
                raise _refused(path, f"lies below {str(folder)!r}, which is a file")


def check_path(path: str) -> None:
    """`Invalid` (archive_refused) for what cannot be the path of a file within a folder."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts:
        raise _refused(path, "leaves the folder of the source")
    # a backslash parts folders elsewhere, and a drive is none of ours
    if "\\" in path or not path.isprintable() or any(part in ("", ".") for part in parts) or path[1:2] == ":":
        raise _refused(path, "is no plain path")
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise _refused(path, "is no plain path") from None
    if sum(lengths) + len(parts) > LONGEST_PATH or max(lengths) > LONGEST_NAME:
        raise _refused(path[:80] + "...", f"is longer than {LONGEST_PATH} bytes, or {LONGEST_NAME} in one name")


def _refused(path: str, why: str) -> Invalid:
    return Invalid(f"{path!r} {why}", code="archive_refused", path=path)

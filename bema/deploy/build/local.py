"""What a lock names on this machine: folders and files, whose content decides what an environment holds.

Laws: a lock says of a folder where it is, not what is in it; here it is known by its content. What comes from elsewhere is not
looked at: an index gives hashes, and a repository is locked to a commit.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
import threading
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_PACKAGE = "\n[[package]]\n"
_NAME = re.compile(r'name = "([^"\n]*)"')
# of a source, or of the files that a folder with packages holds; uv writes each on one line
_PATH = re.compile(r"""[{ ](?:editable|directory|path|virtual) = ("(?:[^"\\\n]|\\.)*"|'[^'\n]*')""")
# .egg-info is left by the build itself, which would make another folder of each that it built
_SKIPPED = re.compile(r"__pycache__|\.hg|\.svn|\.tox|\.nox|.*\.egg-info")
_TAGS = ("CACHEDIR.TAG", "pyvenv.cfg")
"""A folder with one of these is a cache or a virtual environment, whatever its name: cargo's `target` has gigabytes."""
_OF_GIT = ("HEAD", "packed-refs", "refs")
"""Of a repository what a version may be made of; not the rest, which changes without a change."""


class LocalPackages(NamedTuple):
    """Of a lock: the packages whose files are here, and where."""

    names: frozenset[str]
    paths: frozenset[str]

    async def content(self, base: Path) -> str:
        """A digest of all that is in them; what is relative lies below `base`."""
        if not self.paths:
            return ""
        # a thread that reads gigabytes for a build that was called off would hold up the end of its process
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self.digest, base, stop)
        finally:
            stop.set()

    def digest(self, base: Path, stop: threading.Event | None = None) -> str:
        """What `content` gives; of no use once `stop` was set. A folder that is not there has a digest, too."""
        digest = hashlib.sha256()
        for path in sorted(self.paths):
            digest.update(f"{path}\0".encode(errors="surrogateescape"))
            for line in _content(base / path):
                if stop is not None and stop.is_set():
                    return ""
                digest.update(line)
        return digest.hexdigest()


def local_packages(lock: str) -> LocalPackages:
    # by lines and not as TOML, which takes 15 times as long (136 ms of half a megabyte); uv has one
    # form for a line
    names, paths = set(), set()
    for package in packages_of(lock).split(_PACKAGE):
        found = [tomllib.loads(f"path = {text}")["path"] for text in _PATH.findall(package)]
        if found and (name := _NAME.search(package)):
            names.add(name[1])
            paths.update(found)
    return LocalPackages(frozenset(names), frozenset(paths))


def packages_of(lock: str) -> str:
    """A lock without its head, which says what was asked for: what differs there may come to the same packages."""
    _, mark, packages = lock.partition(_PACKAGE)
    return mark + packages


def _content(place: Path) -> Iterator[bytes]:
    """Lines that are the same exactly when the same is in `place`."""
    left, seen = [place], set()
    while left:
        path = left.pop()
        yield os.fsencode(path.relative_to(place)) + b"\0"
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                # links may lead back to where they are
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    left += sorted(_within(path), reverse=True)
            elif stat.S_ISREG(status.st_mode):  # not a pipe, which would be waited for
                yield b"%o" % (status.st_mode & 0o111)
                with path.open("rb") as file:
                    yield hashlib.file_digest(file, "sha256").digest()
        # an answer, too: it differs from what can be read, and the build says what is wrong
        except OSError as error:
            yield str(error.errno).encode()


def _within(folder: Path) -> Iterable[Path]:
    if folder.name == ".git":
        return [folder / name for name in _OF_GIT]
    return [path for path in folder.iterdir() if not _is_left_by_tools(path)]


def _is_left_by_tools(path: Path) -> bool:
    return bool(_SKIPPED.fullmatch(path.name)) or any((path / tag).exists() for tag in _TAGS)

"""FileWatcher: the files of a program, and waiting until one of them changes.

Laws: contents are compared, so that a save without a change is none; an event only says that it is time to look. The files
are found by reading imports, not from a running program, since a program that does not start has files to mend, too.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

from bema.runtime.discovery.inotify import Inotify

SETTLE = 0.02  # editors write, rename and remove in one go
POLL = 0.2  # how often it is looked where nothing tells of changes


def imported(file: Path) -> set[Path]:
    """The file, and the modules of its folder that it imports, and what these import from there."""
    found: set[Path] = set()
    left = [file]
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            left += _imports(path, file.parent)
    return found


def _imports(path: Path, folder: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # it cannot be read now; when it can, it is looked at again
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield from _files(folder, name.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level and len(path.parents) >= node.level else folder
            module = node.module.split(".") if node.module else []
            for name in node.names:
                yield from _files(base, [*module, name.name])


def _files(base: Path, names: list[str]) -> Iterator[Path]:
    """The files of a dotted name: of each package on the way, and of the module itself."""
    for depth in range(1, len(names) + 1):
        place = base.joinpath(*names[:depth])
        for candidate in (place / "__init__.py", place.with_suffix(".py")):
            if candidate.is_file():
                yield candidate


class Watch:
    """The files of one program. Use it in the loop that it was made in."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: dict[Path, bytes] = {}
        self._watched: dict[Path, Callable[[], None]] = {}
        self._woken = asyncio.Event()

    def look(self) -> bool:
        """Read the files as they are now; returns whether any differs from the last look."""
        now = {path: _digest(path) for path in imported(self._file)}
        changed = now != self._seen
        for path in now:
            if now[path] != self._seen.get(path):
                _forget_compiled(path)
        self._seen = now
        for folder in {path.parent for path in now} - self._watched.keys():
            self._follow(folder)
        return changed

    async def changed(self) -> None:
        """Return when a file differs from the last look."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self._watched else POLL):
                    await self._woken.wait()
            self._woken.clear()
            await asyncio.sleep(SETTLE)
            if self.look():
                return

    def close(self) -> None:
        while self._watched:
            self._watched.popitem()[1]()

    def _follow(self, folder: Path) -> None:
        inotify = Inotify.shared()
        if inotify is not None:
            with contextlib.suppress(OSError):  # it is gone, or there are too many: the others tell, or nobody does
                self._watched[folder] = inotify.watch(folder, lambda mask, name: self._heard(folder, name))

    def _heard(self, folder: Path, name: str) -> None:
        if not name:  # the folder went away, or events were lost
            self._watched.pop(folder, lambda: None)()
        if not name or name.endswith(".py"):
            self._woken.set()


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""


def _forget_compiled(path: Path) -> None:
    # what Python compiled is known by the second and the size of its source: two saves can share both
    with contextlib.suppress(OSError, NotImplementedError):
        Path(importlib.util.cache_from_source(str(path))).unlink()

"""Reading the logs of a deployment: the last lines of all its instances in order of time, then what comes after.

The keeper writes them (one file per instance, `x.ndjson`, older parts `x.ndjson.1` and up). Law: only whole records are
read, each once, in the order of their file, through any number of rotations.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

Record = dict[str, Any]
SUFFIX = ".ndjson"
_BLOCK = 64 * 1024


async def read(
    folder: Path,
    *,
    tail: int,
    follow: bool = False,
    since: int = 0,
    version: str = "",
    instance: str = "",
    alive: Callable[[], bool] = lambda: True,
    pause: float = 0.1,
) -> AsyncGenerator[Record, None]:
    """The last `tail` records not older than `since`; with `follow` all later ones too, while the deployment is `alive`.

    Only those of a `version` or an `instance`, where one is named.
    """
    asked = {name: value for name, value in (("version", version), ("instance", instance)) if value}
    with contextlib.ExitStack() as files:
        readers: dict[Path, _Reader] = {}
        past = await asyncio.to_thread(_past, folder, readers, files, tail, asked)
        for record in past:
            if record.get("ts", 0) >= since:
                yield record
        while follow:
            # asked before the read: what was written just before the end is told, too
            last = not alive()
            fresh = await asyncio.to_thread(_fresh, folder, readers, files)
            for record in fresh:
                if _is_of(record, asked):
                    yield record
            if last:
                return
            await asyncio.sleep(pause)


def _past(
    folder: Path, readers: dict[Path, _Reader], files: contextlib.ExitStack, tail: int, asked: dict[str, str]
) -> list[Record]:
    """Every instance's last records; the readers stand where these end."""
    found: list[Record] = []
    for path in _paths(folder):
        readers[path] = reader = _Reader(path, files)
        # a file is one instance's, and so one version's: its last ones are all that can be among the last of those
        found += [record for record in reader.last(tail) if _is_of(record, asked)]
    return _in_time(found)[-tail:] if tail > 0 else []


def _is_of(record: Record, asked: dict[str, str]) -> bool:
    return all(record.get(name) == value for name, value in asked.items())


def _fresh(folder: Path, readers: dict[Path, _Reader], files: contextlib.ExitStack) -> list[Record]:
    for path in _paths(folder):
        if path not in readers:
            readers[path] = _Reader(path, files)
    found = _in_time([record for reader in readers.values() for record in reader.more()])
    for path in [path for path, reader in readers.items() if not reader.parts()]:
        readers.pop(path).close()  # pruned: it was read to its end
    return found


def _paths(folder: Path) -> list[Path]:
    return sorted(_matching(folder, f"*{SUFFIX}"))


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The files of that pattern; none where the folder goes meanwhile."""
    try:
        return list(folder.glob(pattern))
    except FileNotFoundError:
        return []


def _in_time(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record.get("ts", 0))


class _Reader:
    """One instance's log, from where it was read to so far."""

    def __init__(self, path: Path, files: contextlib.ExitStack) -> None:
        self._path = path
        self._files = files
        self._open: BinaryIO | None = None

    def last(self, count: int) -> list[Record]:
        """The last records; what is written from now on is `more`."""
        parts = self.parts()
        for part in parts[-1:]:
            self._take(part)
        lines: list[bytes] = []
        for part in reversed(parts):
            if len(lines) >= count:
                break
            with contextlib.suppress(FileNotFoundError), part.open("rb") as file:
                end = self._end() if part == self._path else file.seek(0, os.SEEK_END)
                lines = [*_last_lines(file, end, count - len(lines)), *lines]
        return [_record(line) for line in lines]

    def _take(self, part: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._open = self._files.enter_context(part.open("rb"))
            size = self._open.seek(0, os.SEEK_END)
            tail = next(iter(_last_lines(self._open, size, 0, unfinished=True)), b"")
            self._open.seek(size - len(tail))

    def _end(self) -> int:
        return self._open.tell() if self._open is not None else 0

    def close(self) -> None:
        if self._open is not None:
            self._open.close()

    def more(self) -> Iterator[Record]:
        """What was written since, in every part that is newer than the one read last."""
        yield from self._rest()
        for part in self._newer():
            try:
                file = part.open("rb")
            except FileNotFoundError:
                return
            self.close()
            self._open = self._files.enter_context(file)
            yield from self._rest()

    def _rest(self) -> Iterator[Record]:
        if self._open is None:
            return
        at = self._open.tell()
        data = self._open.read()
        # a line that is being written now is left for the next look
        whole = data.rfind(b"\n") + 1
        self._open.seek(at + whole)
        for line in data[:whole].splitlines():
            yield _record(line)

    def _newer(self) -> list[Path]:
        parts = self.parts()
        if self._open is None:
            return parts
        # rotation renames: the file that was read so far has another name, and the same number
        mine = os.fstat(self._open.fileno()).st_ino
        for number, part in enumerate(parts):
            with contextlib.suppress(FileNotFoundError):
                if part.stat().st_ino == mine:
                    return parts[number + 1 :]
        return parts

    def parts(self) -> list[Path]:
        """The files of this log, oldest first."""
        older = [p for p in _matching(self._path.parent, f"{self._path.name}.*") if p.suffix[1:].isdecimal()]
        older.sort(key=lambda part: -int(part.suffix[1:]))
        return [*older, self._path] if self._path.exists() else older


def _last_lines(file: BinaryIO, end: int, count: int, *, unfinished: bool = False) -> list[bytes]:
    """The last `count` whole lines before `end`, read from behind; `unfinished` gives the piece after them."""
    data = b""
    while end > 0 and data.count(b"\n") <= count:
        start = max(0, end - _BLOCK)
        file.seek(start)
        data = file.read(end - start) + data
        end = start
    *lines, rest = data.split(b"\n")
    if unfinished:
        return [rest]
    return lines[-count:] if count else []


def _record(line: bytes) -> Record:
    try:
        found = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # damaged, by a crash of the machine say: shown as it is rather than left out
        found = {"ts": 0, "stream": "bema", "event": line.decode(errors="replace")}
    return found

"""The log of one child: NDJSON, rotated, bounded; nothing is lost silently.

Policy. A child that writes faster than the disk takes is slowed by its own pipe. A line beyond the limit is cut and its
record says by how much (`cut`). When the disk refuses, whole records are dropped and counted, and the next record that
can be written says how many (`dropped`).
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .lines import Cut

_TAIL_LINES = 50
_TAIL_TEXT = 2048
_OURS = ("event", "level", "trace_id")


class Bounds(NamedTuple):
    line: int
    file: int
    files: int


class Log:
    def __init__(self, path: Path, bounds: Bounds, redact: Callable[[str], str] | None = None, **origin: str) -> None:
        """`origin` is what every record says of where it comes from: service, instance, version; `redact` gives a text as it may be
        written down."""
        self.tail: collections.deque[dict[str, Any]] = collections.deque(maxlen=_TAIL_LINES)
        self._path = path
        self._bounds = bounds
        self.line_limit = bounds.line
        self._origin = origin
        self._redact = redact
        self._file = -1
        self._size = 0
        self._dropped = 0

    def write(self, stream: str, lines: list[Cut]) -> None:
        """Records of what a child wrote. A line that is itself a record of ours keeps its level and trace."""
        self._append([self._record(stream, line) for line in lines])

    def note(self, text: str, level: str = "info") -> None:
        """A record of what the keeper has to say about the child."""
        self._append([self._new(level, "bema", text)])

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _record(self, stream: str, line: Cut) -> dict[str, Any]:
        record = self._new("info", stream, line.text.decode("utf-8", "replace").removesuffix("\r"))
        if line.left_out:
            record["cut"] = line.left_out
        elif line.text.startswith(b'{"') and b'"event"' in line.text:
            # cheap tests first: nearly all lines are text, and to parse each would cost a flood its
            # speed
            with contextlib.suppress(ValueError, RecursionError):
                said = json.loads(line.text)
                if isinstance(said.get("event"), str):
                    record |= {key: said[key] for key in _OURS if isinstance(said.get(key), str)}
        if self._redact is not None:
            record["event"] = self._redact(record["event"])
        return record

    def _new(self, level: str, stream: str, event: str) -> dict[str, Any]:
        return {"ts": time.time_ns() // 1000, "level": level, **self._origin, "stream": stream, "event": event}

    def _append(self, records: list[dict[str, Any]]) -> None:
        # kept though the disk takes nothing: it explains a crash when nothing else can
        self.tail.extend({**record, "event": record["event"][:_TAIL_TEXT]} for record in records[-_TAIL_LINES:])
        before = self._dropped
        # taken along by the first record that can be written, and taken off only when it was
        if before and records:
            records[0]["dropped"] = before
        text = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records)
        try:
            self._write(text.encode())
        except OSError:
            self._dropped += len(records)
            return
        self._dropped -= before

    def _write(self, data: bytes) -> None:
        if self._file < 0:
            self._open()
        elif self._size + len(data) > self._bounds.file:
            # a batch is never split between two files: a reader of one must see whole records
            self.close()
            self._rotate()
            self._open()
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            # half a batch is worse than none: readers see whole records only
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        self._size += written

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # append: after half a batch was cut off, the next record lands at the new end
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        """`x` becomes `x.1`, and so on; the oldest goes."""
        for number in range(self._bounds.files - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                _numbered(self._path, number).rename(_numbered(self._path, number + 1))
        if self._bounds.files > 0:
            self._path.rename(_numbered(self._path, 1))
        else:
            self._path.unlink()


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def prune(folder: Path, keep: int) -> None:
    """Leave the logs of the `keep` youngest instances: a crash loop must not fill the disk with file names."""
    with contextlib.suppress(OSError):
        logs = sorted(folder.glob("*.ndjson"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in logs[keep:]:
            for path in folder.glob(f"{old.name}*"):
                path.unlink(missing_ok=True)

"""Bytes in, messages out: the cutting of a byte stream into lines, bounded.

Law: whatever comes in, the reader goes on. A line that is too long is dropped while it arrives, a line that cannot be
read is dropped when it ends, and either is reported as exactly one `BadLine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from bema.core.errors import ProtocolError
from bema.core.limits import DEFAULTS

_SHOWN = 120


class BadLine(msgspec.Struct, frozen=True):
    """A line that is no message: why, and how it begins."""

    reason: str
    excerpt: str


class LineReader:
    """Feed it bytes; it yields what `read` makes of each line, or a `BadLine`. Empty lines are nothing."""

    def __init__(self, read: Callable[[bytes], Any], longest: int = DEFAULTS.channel_line) -> None:
        self._read = read
        self._longest = longest
        self._kept = bytearray()
        self._dropping = False

    def feed(self, data: bytes) -> Iterator[Any]:
        *whole, rest = data.split(b"\n")
        for part in whole:
            yield from self._take(part)
            if not self._dropping and (line := bytes(self._kept).strip()):
                yield self._message(line)
            self._kept.clear()
            self._dropping = False
        yield from self._take(rest)

    def reading_with(self, read: Callable[[bytes], Any]) -> None:
        """Read the lines from here on with another reader: the first line of a conversation is not like the rest."""
        self._read = read

    def _take(self, part: bytes) -> Iterator[BadLine]:
        if self._dropping:
            return
        self._kept += part
        if len(self._kept) > self._longest:
            self._dropping = True
            yield BadLine(f"the line is longer than {self._longest} bytes", _excerpt(self._kept))
            self._kept.clear()

    def _message(self, line: bytes) -> Any:
        try:
            return self._read(line)
        except ProtocolError as error:
            return BadLine(error.message, _excerpt(line))


def _excerpt(line: bytes | bytearray) -> str:
    return bytes(line[:_SHOWN]).decode(errors="backslashreplace")

"""LineReader: cuts a stream of bytes into lines of bounded length, and reads each as a message.

Law: whatever comes in, the reader goes on. It drops a line that is too long while the line arrives, and one that cannot be
read when it ends; each gives exactly one `BadLine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from bema.core.errors import ProtocolError
from bema.core.limits import DEFAULTS

_SHOWN = 120


class BadLine(msgspec.Struct, frozen=True):
    """A line that is no message: the reason, and the beginning of the line."""

    reason: str
    excerpt: str


class LineReader:
    """Yields for each line what `read` makes of it, or a `BadLine`. Empty lines are passed over."""

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
        """Read the lines from here on with another function: the first line of a channel differs from the rest."""
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

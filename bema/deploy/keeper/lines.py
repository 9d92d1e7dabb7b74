"""Bytes in, lines out, within a bound: a line of any length costs at most `limit` bytes of memory."""

from __future__ import annotations

from typing import NamedTuple


class Cut(NamedTuple):
    """One line, and how many bytes of it were left out."""

    text: bytes
    left_out: int


class Lines:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._left_out = 0

    def feed(self, data: bytes) -> list[Cut]:
        """The lines that `data` completes."""
        # split once: a line at a time would copy the rest of a large read for each
        *whole, rest = data.split(b"\n")
        lines = []
        for part in whole:
            self._take(part)
            lines.append(self._end())
        self._take(rest)
        return lines

    def rest(self) -> list[Cut]:
        """What came after the last newline; called once nothing more can come."""
        return [self._end()] if self._kept or self._left_out else []

    def _take(self, part: bytes) -> None:
        room = self._limit - len(self._kept)
        self._kept += part[:room]
        self._left_out += max(0, len(part) - room)

    def _end(self) -> Cut:
        line = Cut(bytes(self._kept), self._left_out)
        self._kept.clear()
        self._left_out = 0
        return line

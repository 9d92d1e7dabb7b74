"""Bytes in hand, given to a reader of frames."""

from __future__ import annotations

from typing import Any

from bema.wire.rpc import frames as f
from bema.wire.rpc.reader import BatchReader


def open_reader() -> BatchReader:
    """One that takes all that a greeted peer may send."""
    return BatchReader(memoryview(bytearray(256 * 1024)), f.MESSAGE_LIMIT + f.HEADERS_LIMIT)


def fed(reader: BatchReader, data: bytes) -> list[Any]:
    """What the reader makes of data that comes in one piece."""
    return [part for size in reader.lay(data) for part in reader.put(size)]

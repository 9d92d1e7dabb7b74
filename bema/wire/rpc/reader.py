"""BatchReader: bytes to batches of messages, the reverse of `frames`.

Law: a frame is read where it lies. Small frames are decoded from a buffer that all readers of a loop may share; a large one
gets its own buffer, and its payload is not copied on the way to its decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

import msgspec

from bema.core.errors import ProtocolError
from bema.wire.rpc import frames

STEP: Final = 1024 * 1024  # bytes set aside for a frame of which only the beginning has come


def _no_extensions(code: int, data: memoryview) -> NoReturn:
    raise ProtocolError(f"a frame holds a msgpack extension of type {code}")


_decode = msgspec.msgpack.Decoder(ext_hook=_no_extensions).decode
_decode_lone = msgspec.msgpack.Decoder(tuple[int, int, msgspec.Raw]).decode
_decode_request = msgspec.msgpack.Decoder(tuple[str, float | None, bytes, memoryview]).decode
_DECODE_BODY: Final[dict[int, Callable[[Any], Any]]] = {
    **dict.fromkeys(frames.REQUESTS, lambda body: list(_decode_request(body))),
    **dict.fromkeys((frames.ANSWER, frames.ERROR), msgspec.msgpack.Decoder(memoryview).decode),
    **dict.fromkeys((frames.INPUT, frames.ITEM), msgspec.msgpack.Decoder(list[memoryview]).decode),
}
"""By kind of message: what decodes the body of one that travels alone, leaving its payload where it is."""


class BatchReader:
    """Cuts frames out of the bytes that are read into `room()`, in whatever pieces they come.

    Small frames are read into `space`. Nothing stays in it between two reads, so that all connections of a loop may share
    one. The payload of a large frame is a `memoryview` of the frame's own buffer; other payloads are `bytes`.
    """

    __slots__ = ("_filled", "_frame", "_left", "_length", "_space", "limit")

    def __init__(self, space: memoryview, limit: int = frames.HELLO_LIMIT) -> None:
        self.limit = limit
        self._space = space
        self._left = b""  # of a small frame, until the rest has come
        self._frame: bytearray | None = None  # of a large one
        self._length = self._filled = 0

    def room(self) -> memoryview:
        """The buffer for the next bytes; `put(size)` then says how many came."""
        if self._frame is not None:
            return memoryview(self._frame)[self._filled :]
        left = self._left
        if not left:
            return self._space
        self._space[: len(left)] = left
        return self._space[len(left) :]

    def put(self, size: int) -> list[Any]:
        """The messages that `size` more bytes complete, as one flat list, empty while a frame is unfinished.

        `ProtocolError` for a frame beyond `limit` bytes, and for what is no frame.
        """
        view = self._space
        if self._frame is not None:
            return self._fill(size)
        if self._left:
            size += len(self._left)
        elif size >= 4:
            # most reads bring exactly one frame
            (length,) = frames.LENGTH.unpack_from(view)
            if length == size - 4 and length <= self.limit:
                return unpack(view[4:size])
        return self._split(view, size)

    def _split(self, view: memoryview, size: int) -> list[Any]:
        messages: list[Any] = []
        start = 0
        while size - start >= 4:
            (length,) = frames.LENGTH.unpack_from(view, start)
            if length > self.limit:
                raise ProtocolError(f"a frame of {length} bytes is larger than the limit of {self.limit} bytes")
            end = start + 4 + length
            if end > size:
                break
            batch = unpack(view[start + 4 : end])
            messages = messages + batch if messages else batch
            start = end
        else:
            length = 0
        self._left = b""
        if length >= frames.LARGE:
            self._begin(length, view[start + 4 : size])
        else:
            self._left = bytes(view[start:size])
        return messages

    def _begin(self, length: int, part: memoryview) -> None:
        # a peer that only announces a large frame makes us hold twice what it has sent, or `STEP`
        frames.keep()
        self._length, self._filled = length, len(part)
        self._frame = bytearray(min(length, max(STEP, 2 * len(part))))
        self._frame[: len(part)] = part

    def _fill(self, size: int) -> list[Any]:
        frame = self._frame
        assert frame is not None
        self._filled += size
        if self._filled < len(frame):
            return []
        if self._filled < self._length:
            # a new one: whoever has read into the old one may still hold a view of it
            self._frame = bytearray(min(self._length, 2 * len(frame)))
            self._frame[: len(frame)] = frame
            return []
        self._frame = None
        return unpack_large(memoryview(frame))

    def lay(self, data: bytes) -> Iterator[int]:
        """Copy `data` into the room piece by piece, for a caller that has read it already; yields the sizes to `put`."""
        rest = memoryview(data)
        while rest:
            room = self.room()
            size = min(len(room), len(rest))
            room[:size] = rest[:size]
            yield size
            rest = rest[size:]


def unpack(frame: memoryview | bytes) -> list[Any]:
    """The flat messages of one frame's body; `ProtocolError` where it is not our msgpack."""
    try:
        batch = _decode(frame)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, TypeError) as error:
        raise ProtocolError(f"a frame is not the msgpack we speak: {error}") from error
    if type(batch) is not list or len(batch) % 3:
        raise ProtocolError("a frame is not a flat array of id, kind and body")
    return batch


def unpack_large(frame: memoryview) -> list[Any]:
    """As `unpack`, for a frame with its own buffer: the payload of a lone message stays in it."""
    try:
        ident, kind, body = _decode_lone(frame)
        if (decode := _DECODE_BODY.get(kind)) is not None:
            return [ident, kind, decode(body)]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, TypeError):
        pass  # whatever else it is
    return unpack(frame)

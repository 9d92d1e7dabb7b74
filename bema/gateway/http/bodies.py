"""Bodies: how the body of a message is delimited, by a length, by chunks or by the end of the connection. No sockets.

Law: framing is never forwarded. A body is decoded on arrival and framed anew for the next hop, so that both sides agree on
where a message ends.
"""

from __future__ import annotations

import re
from typing import Protocol

from bema.core.errors import Invalid, TooLarge
from bema.gateway.http.heads import RequestHead, ResponseHead, read_trailers

__all__ = ["Body", "Chunked", "SizedBody", "UntilClose", "chunk", "of_request", "of_response"]

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_LONGEST_SIZE_LINE = 1024
_LONGEST_TRAILERS = 64 * 1024


class Body(Protocol):
    """The rest of one message's body: bytes in, payload out, until `done`."""

    done: bool
    rest: bytes  # what came after the end
    trailers: bytes  # lines that followed a chunked body, each with its line end

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they arrive and return the payload among them; `Invalid` or `TooLarge` for bad framing."""
        ...


class SizedBody:
    """Exactly `left` more bytes."""

    __slots__ = ("done", "left", "rest", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.rest = b""
        self.trailers = b""

    def feed(self, data: bytes) -> bytes:
        # The common case first: a piece in the middle is handed on as it is, not copied.
        left = self.left - len(data)
        if left > 0:
            self.left = left
            return data
        payload = data
        if left < 0:
            payload, self.rest = data[: self.left], data[self.left :]
        self.left = 0
        self.done = True
        return payload


class UntilClose:
    """Everything until the peer closes; who reads it sees the end."""

    __slots__ = ("done", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers = b""

    def feed(self, data: bytes) -> bytes:
        return data


class Chunked:
    """The chunked coding (RFC 9112 7.1), read strictly: lines end in CRLF, sizes are bare hexadecimal digits."""

    __slots__ = ("_held", "_left", "_read", "done", "rest", "trailers")

    def __init__(self) -> None:
        self._read = self._size
        self._held = b""
        self._left = 0
        self.done = False
        self.rest = b""
        self.trailers = b""

    def feed(self, data: bytes) -> bytes:
        if self._held:
            data, self._held = self._held + data, b""
        out: list[bytes] = []
        at = 0
        while not self.done:
            after = self._read(data, at, out)
            if after < 0:
                self._held = data[at:]
                return b"".join(out)
            at = after
        self.rest = data[at:]
        return b"".join(out)

    # Each reader returns where the next one begins, or -1 when it needs more bytes than there are.

    def _size(self, data: bytes, at: int, out: list[bytes]) -> int:
        end = data.find(b"\r\n", at)
        if end < 0:
            line = data[at:]
            # A bare line feed ends the line for lenient peers, so waiting for CRLF would differ
            # from them.
            if len(line) > _LONGEST_SIZE_LINE or b"\n" in line:
                raise _bad("a chunk size")
            return -1
        found = _SIZE.fullmatch(data, at, end)
        if found is None or end - at > _LONGEST_SIZE_LINE:
            raise _bad("a chunk size")
        self._left = int(found[1], 16)
        self._read = self._payload if self._left else self._trailers
        return end + 2

    def _payload(self, data: bytes, at: int, out: list[bytes]) -> int:
        piece = data[at : at + self._left]
        if not piece:
            return -1
        out.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._read = self._end
        return at + len(piece)

    def _end(self, data: bytes, at: int, out: list[bytes]) -> int:
        end = data[at : at + 2]
        # At the first wrong byte: the payload before it may have been forwarded, but nothing behind
        # it.
        if not b"\r\n".startswith(end):
            raise _bad("the end of a chunk")
        if len(end) < 2:
            return -1
        self._read = self._size
        return at + 2

    def _trailers(self, data: bytes, at: int, out: list[bytes]) -> int:
        if data.startswith(b"\r\n", at):
            end = at + 2
        elif (found := data.find(b"\r\n\r\n", at)) >= 0:
            end = found + 4
        elif len(data) - at > _LONGEST_TRAILERS:
            raise TooLarge("the trailers are too long", code="head_too_large")
        else:
            return -1
        self.trailers = read_trailers(data[at:end])
        self.done = True
        return end


def chunk(payload: bytes) -> bytes:
    """One chunk that holds `payload`; nothing for an empty one, which would end the body."""
    # Extensions are dropped: who does not know one ignores it (RFC 9112 7.1.1).
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def of_request(head: RequestHead) -> Body | None:
    """How the body that follows `head` is read; None where there is none."""
    if head.chunked:
        return Chunked()
    return SizedBody(head.length) if head.length else None


def of_response(head: ResponseHead, method: bytes) -> Body | None:
    """How the answer's body is read (RFC 9112 6.3)."""
    # In this order (RFC 9112 6.3): the method and status say there is no body, whatever a header
    # says.
    if method == b"HEAD" or head.status in (204, 304) or head.status < 200:
        return None
    if head.chunked:
        return Chunked()
    if head.length is None:
        return UntilClose()
    return SizedBody(head.length) if head.length else None


def _bad(what: str) -> Invalid:
    return Invalid(f"{what} does not follow the chunked coding", code="bad_request")

"""Frames: batches of messages as bytes, and what a message may hold; `reader` reads them back.

A frame is a little-endian u32 length and one msgpack array: the messages of one turn of the loop, flattened as `id, kind,
body, id, kind, body, ...`. Laws: payloads inside of a body are opaque msgpack `bin`, so that a frame can be read, counted and
forwarded without knowing any user's type. `KINDS` holds every kind of message; any other kind or shape is a `ProtocolError`.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from bema.core.errors import Invalid, ProtocolError, TooLarge
from bema.core.limits import DEFAULTS
from bema.core.redaction import hides

VERSION: Final = 1
OLDEST: Final = 1

HELLO: Final = 0
UNARY: Final = 1
STREAM: Final = 2
COLLECT: Final = 3
BOTH: Final = 4
INPUT: Final = 5
INPUT_END: Final = 6
CANCEL: Final = 7
STOP: Final = 8
CREDIT: Final = 9
ANSWER: Final = 10
ITEM: Final = 11
END: Final = 12
ERROR: Final = 13
PING: Final = 14
PONG: Final = 15
GOAWAY: Final = 16


class KindInfo(msgspec.Struct, frozen=True):
    name: str
    body: str


KINDS: Final[dict[int, KindInfo]] = {
    HELLO: KindInfo("hello", "map: versions, token, features, largest message"),
    UNARY: KindInfo("unary", "request: one payload in, one answer out"),
    STREAM: KindInfo("stream", "request: one payload in, items out"),
    COLLECT: KindInfo("collect", "request: items in, one answer out"),
    BOTH: KindInfo("both", "request: items in, items out"),
    INPUT: KindInfo("input", "payloads of the caller's stream"),
    INPUT_END: KindInfo("input end", "nil: the caller's stream is complete"),
    CANCEL: KindInfo("cancel", "nil: the caller gives the call up"),
    STOP: KindInfo("stop", "nil: the caller asks the handler to end early"),
    CREDIT: KindInfo("credit", "bytes consumed, which may be sent anew; id 0 for the connection alone"),
    ANSWER: KindInfo("answer", "the one payload of a unary call"),
    ITEM: KindInfo("item", "payloads of the callee's stream"),
    END: KindInfo("end", "bool: whether the stream was cut short by a stop"),
    ERROR: KindInfo("error", "payload: the failure"),
    PING: KindInfo("ping", "nil"),
    PONG: KindInfo("pong", "nil"),
    GOAWAY: KindInfo("goaway", "nil: no new calls on this connection"),
}

REQUESTS: Final = frozenset({UNARY, STREAM, COLLECT, BOTH})

# The protocol's own numbers, which every peer takes whatever its limits: changing a default changes the protocol.
FRAME_LIMIT: Final = DEFAULTS.rpc_frame
MESSAGE_LIMIT: Final = DEFAULTS.rpc_message
HEADERS_LIMIT: Final = DEFAULTS.rpc_headers
STREAM_WINDOW: Final = DEFAULTS.rpc_stream_window
CONNECTION_WINDOW: Final = DEFAULTS.rpc_connection_window

FULL: Final = 8  # a batch is closed at this part of a frame, so that the message that fills it still fits
LARGE: Final = 64 * 1024  # a payload from here on travels in a frame of its own, uncopied
HELLO_LIMIT: Final = 4096  # bytes that a peer can make us hold before it has shown its token

Payload = bytes | memoryview
"""An encoded value: bytes, or the part of a large frame's buffer where it lies."""
BINARY: Final = frozenset({bytes, memoryview})

LENGTH: Final = struct.Struct("<I")
_BIN32 = struct.Struct(">BI")


_encode = msgspec.msgpack.Encoder().encode
_decode_metadata = msgspec.msgpack.Decoder(dict[str, str]).decode


def pack(messages: list[Any]) -> bytes:
    """A flat batch as one frame."""
    body = _encode(messages)
    return LENGTH.pack(len(body)) + body


def pack_within(messages: list[Any], most: int) -> bytes:
    """As `pack`, in as many frames as it takes that none with several messages is larger than `most` bytes."""
    frame = pack(messages)
    if len(frame) <= most or len(messages) == 3:
        return frame
    half = len(messages) // 6 * 3
    return pack_within(messages[:half], most) + pack_within(messages[half:], most)


def pack_large(ident: int, kind: int, body: Any, payload: bytes) -> tuple[bytes, bytes]:
    """A frame for one message with a large payload, as two buffers, so that `payload` is not copied.

    `body` is the message's body with `b""` in the payload's place, which is always its last element.
    """
    # the empty payload ends the encoding as two bytes (bin 8, length 0); a bin 32 header (0xC6) takes their place
    keep()
    head = _encode([ident, kind, body])[:-2]
    length = len(head) + _BIN32.size + len(payload)
    return LENGTH.pack(length) + head + _BIN32.pack(0xC6, len(payload)), payload


def messages(batch: list[Any]) -> Iterator[tuple[Any, Any, Any]]:
    """The messages of a flat batch, each as id, kind and body."""
    parts = iter(batch)
    return zip(parts, parts, parts, strict=False)


def read_request(body: Any) -> tuple[str, float | None, bytes, Payload]:
    """The body of a request: route, remaining time, headers, payload; `ProtocolError` where one is of another type.

    The remaining time is in seconds, or None. Headers are opaque like the payload, since most calls never look at theirs.
    """
    # a remaining time, not a deadline: the clocks of two hosts are never compared
    if type(body) is not list or len(body) != 4:
        raise ProtocolError("a request is not route, remaining time, headers and payload")
    route, remaining, headers, payload = body
    if (
        type(route) is str
        and (type(payload) is bytes or type(payload) is memoryview)
        and type(headers) is bytes
        and len(headers) <= HEADERS_LIMIT
        and (remaining is None or type(remaining) is float or type(remaining) is int)
    ):
        return body  # type: ignore[return-value]
    if type(route) is not str or type(headers) is not bytes or not isinstance(payload, bytes | memoryview):
        raise ProtocolError("a request's route is not text, or its headers or payload not binary")
    if len(headers) > HEADERS_LIMIT:
        raise ProtocolError(f"headers of {len(headers)} bytes are larger than the limit of {HEADERS_LIMIT} bytes")
    raise ProtocolError("a request's remaining time is not a number")


def pack_metadata(metadata: dict[str, str] | None, most: int = HEADERS_LIMIT) -> bytes:
    """Metadata as headers; `TooLarge` beyond `most` bytes, `Invalid` where a name or value is no text."""
    if not metadata:
        return b""
    try:
        headers = _encode(metadata)
    except (TypeError, ValueError) as error:  # half of a surrogate pair is a ValueError
        raise Invalid(f"the call's metadata is not text to text: {error}") from error
    if len(headers) > most:
        raise headers_too_large(len(headers), most)
    return headers


def headers_too_large(size: int, most: int) -> TooLarge:
    """The error for metadata of `size` bytes."""
    return TooLarge(
        f"metadata of {size} bytes is larger than the limit of {most} bytes (rpc_headers)", limit=most, size=size
    )


def read_metadata(headers: bytes) -> dict[str, str]:
    """Headers as metadata; `Invalid` where they are not text by text."""
    if not headers:
        return {}
    try:
        return _decode_metadata(headers)
    except (msgspec.DecodeError, TypeError) as error:
        raise Invalid(f"the call's metadata is not text to text: {error}") from error


def payload_size(payloads: Any) -> int:
    """The size in bytes of a list of payloads; `ProtocolError` for anything else."""
    try:
        # `bytes.__len__` checks the type and measures in one step
        if len(payloads) == 1 and type(payloads) is list:
            only = payloads[0]
            return len(only) if type(only) is memoryview else bytes.__len__(only)
        if payloads:
            return sum(map(bytes.__len__, payloads))
    except TypeError:
        pass
    raise ProtocolError("a stream's items are not a list of binaries")


class Hello(msgspec.Struct, omit_defaults=True):
    """The first message of each side. Both then speak the newest version that both know."""

    oldest: int = OLDEST
    newest: int = VERSION
    token: str = ""
    features: list[str] = []
    largest: int = MESSAGE_LIMIT  # of one message that this side accepts
    name: str = ""
    stream: int = STREAM_WINDOW  # unread bytes this side holds of a stream
    window: int = CONNECTION_WINDOW  # and of all streams of the connection
    __repr__ = hides("token")


def pack_hello(hello: Hello) -> bytes:
    return pack([0, HELLO, msgspec.to_builtins(hello)])


def read_hello(body: Any) -> Hello:
    try:
        return msgspec.convert(body, Hello)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"a hello is malformed: {error}") from error


def agree(theirs: Hello) -> int:
    """The version to speak; `ProtocolError` where both sides have none in common."""
    version = min(VERSION, theirs.newest)
    if version < max(OLDEST, theirs.oldest):
        raise ProtocolError(
            f"the peer speaks versions {theirs.oldest} to {theirs.newest} of our protocol, we {OLDEST} to {VERSION}"
        )
    return version


KEPT: Final = 4 * 1024 * 1024


@functools.cache
def keep() -> None:
    """Make glibc keep freed memory for the next large message, up to twice `KEPT` bytes. Elsewhere this does nothing."""
    # glibc gives what is freed at the top of its heap back to the kernel, from 128 KiB on, and each page that comes anew
    # costs a fault: twenty for each call of 64 KiB. It raises that bound to twice the largest block that was ever freed
    # (mallopt(3), "dynamic mmap threshold"), so one block is allocated and freed; none of its pages is touched.
    bytes(KEPT)

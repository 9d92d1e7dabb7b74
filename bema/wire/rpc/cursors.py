"""Cursors: how far the reader of a resumable stream has come, and how that travels.

The header `bema-resume` of a call asks for cursors: empty for a new stream, else the cursor to continue behind. A server that
knows the header sends each item as the pair of a cursor and the value; nil stands for the item's number. Law: one that does
not know it, and whoever does not ask, sees the stream as if there were no cursors.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import msgspec

from bema.core.errors import Invalid
from bema.wire.values import codecs

HEADER: Final = "bema-resume"
MOST: Final = 1024
"""Bytes of a cursor. It travels in the headers of the call that continues the stream, whose block is bounded."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Any, msgspec.Raw]).decode


def header_of(cursor: Any) -> str:
    """The header's text; empty for no cursor."""
    return "" if cursor is None else base64.urlsafe_b64encode(_encode(cursor)).decode()


def read_header(text: str) -> Any:
    """The cursor that a header holds, None for an empty one; `Invalid` where it is none of ours."""
    if not text:
        return None
    try:
        return codecs.unpack(base64.b64decode(text, b"-_", validate=True))
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise Invalid(f"the header {HEADER} holds no cursor: {text[:80]!r}") from error


def pack_item(cursor: Any, payload: bytes) -> bytes:
    """An item with its cursor; `Invalid` for a cursor that would not come back equal, or is too large."""
    if cursor is None:
        return b"\x92\xc0" + payload
    packed = codecs.encode(cursor)
    if len(packed) > MOST:
        raise Invalid(
            f"the cursor has {len(packed)} bytes; at most {MOST} travel", fix="Yield a position, not a state."
        )
    return b"\x92" + packed + payload


def read_item(packed: Any) -> tuple[Any, bytes]:
    """The cursor, or None, and the payload; `msgspec.DecodeError` for what is no such pair."""
    cursor, payload = _decode(packed)
    return cursor, bytes(payload)

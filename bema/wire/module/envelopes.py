"""Envelopes: an operation travels bare, or wrapped as `{id, content, metadata}`; both are read here.

Law: one line or frame body in, one message or `ProtocolError` out. Each of the two directions has its own reader.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from bema.core.errors import ProtocolError
from bema.wire.module.handshake import encode
from bema.wire.module.messages import FromModule, HttpAnswer, HttpQuestion, ToModule
from bema.wire.module.registration import RegistrationReply, RegistrationRequest

__all__ = ["Envelope", "MessageMetadata", "encode", "http_response_line", "read_from_module", "read_to_module"]


class MessageMetadata(msgspec.Struct, kw_only=True, omit_defaults=True):
    id: str | None = None
    timestamp: int | None = None
    source: str | None = None
    destination: str | None = None
    properties: dict[str, Any] | None = None


class Envelope(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`id` is absent around an HTTP response on stdio, present on framed channels."""

    id: str | None = None
    content: Any
    metadata: MessageMetadata = msgspec.field(default_factory=MessageMetadata)


class _Wrapped(Envelope, kw_only=True):
    content: msgspec.Raw


class _Peek(msgspec.Struct):
    op: Any = None
    content: Any = None
    request_type: Any = None
    response_type: Any = None
    status_code: Any = None
    method: Any = None


def read_from_module(line: bytes) -> Any:
    """A message from a module: an operation, or an `Envelope` whose content is read too; `ProtocolError` for neither."""
    return _read(line, FromModule)


def read_to_module(line: bytes) -> Any:
    """A message to a module after the first line; `ProtocolError` where it is none."""
    return _read(line, ToModule)


def http_response_line(answer: HttpAnswer, message_id: str, source: str) -> bytes:
    """An HTTP response as the reference writes it on stdio: wrapped, and without `op`."""
    bare = HttpAnswer(**{name: getattr(answer, name) for name in HttpAnswer.__struct_fields__})
    metadata = MessageMetadata(id=message_id, source=source, properties={"correlation_id": answer.request_id})
    return encode(Envelope(content=bare, metadata=metadata))


# which type a message without `op` is, by the first of these that it has
_BY_KEY: dict[str, Any] = {
    "request_type": RegistrationRequest,
    "response_type": RegistrationReply,
    "status_code": HttpAnswer,
    "method": HttpQuestion,
}


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Made when first used: a process without a channel never needs one."""
    return msgspec.json.Decoder(kind)


def _read(line: bytes, operations: Any) -> Any:
    try:
        seen = _decoder(_Peek).decode(line)
        if seen.op is None and seen.content is not None:
            wrapped = _decoder(_Wrapped).decode(line)
            kind = _kind_of(_decoder(_Peek).decode(wrapped.content), operations)
            content = _decoder(kind).decode(wrapped.content)
            return Envelope(id=wrapped.id, content=content, metadata=wrapped.metadata)
        return _decoder(_kind_of(seen, operations)).decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a message of the module channel: {error}") from error


def _kind_of(seen: _Peek, operations: Any) -> Any:
    if seen.op is not None:
        return operations
    return next((kind for key, kind in _BY_KEY.items() if getattr(seen, key) is not None), operations)

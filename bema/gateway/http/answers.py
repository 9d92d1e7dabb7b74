"""The gateway's own answers. Law: each has the request id, and an error has the status that its code's row says. Pure."""

from __future__ import annotations

import http
import math
from collections.abc import Iterable

import msgspec

from bema.core.errors import BemaError, as_json

__all__ = ["answer", "content", "error_answer"]

_REASONS = {status.value: status.phrase.encode() for status in http.HTTPStatus} | {499: b"Client Closed Request"}


def answer(
    status: int, headers: list[tuple[bytes, bytes]], body: bytes, trace_id: str, *, close: bool, head: bool = False
) -> bytes:
    """A whole answer as bytes; `head` leaves the body out, `close` says that the connection ends."""
    # RFC 9110 9.3.2: the answer to HEAD has the length of the body that GET would have
    parts = [b"HTTP/1.1 %d %b\r\n" % (status, _REASONS.get(status, b""))]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    # RFC 9110 8.6: an answer of status 204 has no content-length
    parts.append(b"" if status == 204 else b"content-length: %d\r\n" % len(body))
    parts.append(b"x-request-id: %b\r\n" % trace_id.encode())
    parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    if not head:
        parts.append(body)
    return b"".join(parts)


def error_answer(
    error: BemaError,
    trace_id: str,
    *,
    close: bool,
    head: bool = False,
    more: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """An error as a whole answer, with `more` headers; `retry_after` becomes `Retry-After` in whole seconds."""
    # rounded up: RFC 9110 10.2.3 has whole seconds, and a client that comes too early is refused again
    headers = [(b"content-type", b"application/json"), *more]
    if allowed := error.details.get("allow"):
        headers.append((b"allow", str(allowed).encode()))
    if where := error.details.get("location"):
        headers.append((b"location", str(where).encode("latin-1", "replace")))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
    return answer(error.problem.http, headers, content(error, trace_id), trace_id, close=close, head=head)


def content(error: BemaError, trace_id: str) -> bytes:
    """The JSON body of an error."""
    return msgspec.json.encode(as_json(error, trace_id)) + b"\n"

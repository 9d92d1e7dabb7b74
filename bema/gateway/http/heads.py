"""Heads: the guard that turns the raw head of a message into a `RequestHead` or `ResponseHead`, or refuses it. Pure.

Laws: a head that two parsers could read differently is refused before anything is forwarded. An expression of ours checks
the grammar on the raw bytes; httptools then splits what passed. The headers that frame, route or identify a message stand
in `ours`, each name once; all others are in `headers` as they came, for the instance to read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import httptools

from bema.core.errors import BemaError, Invalid, TooLarge

__all__ = ["END", "RequestHead", "ResponseHead", "hopeless", "read_request", "read_response", "read_trailers"]

END = b"\r\n\r\n"

# RFC 9110 5.6.2 and 9112 2-5, read strictly: lines end in CRLF, nothing stands before a colon, no header is folded. The
# possessive quantifiers (`++`) keep a head that does not match from being tried in every division.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_LINE = _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e]++) HTTP/1\.([01])\r\n(?:" + _LINE + rb")*+\r\n")
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*+))?\r\n(?:" + _LINE + rb")*+\r\n")
_TRAILERS = re.compile(rb"(?:" + _LINE + rb")*+\r\n")
_HOPELESS = re.compile(rb"(?<!\r)\n|\r[^\n]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
# no sign, no spaces, no list of equal values: `int` would take the first two, and proxies differ on the third (RFC 9110 8.6)
_LENGTH = re.compile(rb"[0-9]{1,18}")

_SERVED = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding"})
# hop-by-hop (RFC 9110 7.6.1), written by us alone, or answered by us
_OURS = _ONCE | frozenset(
    {
        b"bema-version",
        b"connection",
        b"expect",
        b"forwarded",
        b"http2-settings",
        b"keep-alive",
        b"origin",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"traceparent",
        b"trailer",
        b"upgrade",
        b"x-real-ip",
        b"x-request-id",
    }
)
# RFC 9110 6.5.1: a trailer must not frame, route or authenticate a message whose head was acted upon already
_UNSAFE_TO_DROP = frozenset({b"host", b"content-length", b"authorization", b"x-request-id"})


class RequestHead:
    """A request head that passed the guard. Names in `ours` are lower case; `length` is None where none was declared."""

    __slots__ = ("chunked", "headers", "host", "http10", "length", "method", "ours", "target")

    def __init__(self, method: bytes, target: bytes, http10: bool) -> None:
        self.method = method
        self.target = target
        self.http10 = http10
        self.host = b""
        self.chunked = False
        self.length: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.ours: dict[bytes, bytes] = {}

    def take(self, name: bytes, value: bytes) -> None:
        """Take one header. Those that only the gateway may write (`x-forwarded-*`) are dropped."""
        low = name.lower()
        if b"_" in low:
            # CGI-style servers read '_' as '-': a client could spell what only we may write
            low = low.replace(b"_", b"-")
            if low in _OURS or low.startswith(b"x-forwarded-"):
                return
        if low in _OURS:
            self.ours[low] = _merged(self.ours, low, value)
        elif not low.startswith(b"x-forwarded-"):
            self.headers.append((name, value))

    def header(self, name: bytes) -> bytes | None:
        """The first value of an end-to-end header; `name` in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def closes(self) -> bool:
        return self.http10 or (b"connection" in self.ours and b"close" in tokens(self.ours[b"connection"]))

    @property
    def expects_continue(self) -> bool:
        return not self.http10 and self.ours.get(b"expect", b"").lower() == b"100-continue"

    @property
    def upgrade(self) -> bytes | None:
        """The protocol to switch to, if this asks for one; h2c is not offered, and a body never comes with it."""
        if b"upgrade" not in self.ours or self.http10 or self.chunked or self.length:
            return None
        asked = self.ours[b"upgrade"]
        wanted = b"upgrade" in tokens(self.ours.get(b"connection", b""))
        return asked if wanted and not asked.lower().startswith(b"h2") else None


class ResponseHead:
    """The head of an instance's response, split in the same way."""

    __slots__ = ("chunked", "headers", "http10", "length", "ours", "reason", "status")

    def __init__(self, status: int, reason: bytes, http10: bool) -> None:
        self.status = status
        self.reason = reason
        self.http10 = http10
        self.chunked = False
        self.length: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.ours: dict[bytes, bytes] = {}

    def take(self, name: bytes, value: bytes) -> None:
        low = name.lower()
        if low in _OURS:
            self.ours[low] = _merged(self.ours, low, value)
        else:
            self.headers.append((name, value))

    @property
    def closes(self) -> bool:
        return self.http10 or (b"connection" in self.ours and b"close" in tokens(self.ours[b"connection"]))


def read_request(raw: bytes, most_headers: int) -> RequestHead:
    """Read a request head, `raw` with its empty line.

    Raises:
        Invalid: the head is ambiguous or breaks the grammar (code `bad_request`), or the method is not served.
        TooLarge: it has more than `most_headers` headers (code `head_too_large`).
    """
    line = _REQUEST.fullmatch(raw)
    if line is None:
        raise _bad("the request head does not follow the HTTP/1.1 grammar")
    head = RequestHead(line[1], line[2], line[3] == b"0")
    # CONNECT would make a tunnel of the gateway, and TRACE would echo the headers that the gateway adds
    if head.method in (b"CONNECT", b"TRACE"):
        raise Invalid(f"{head.method.decode()} is not served here", code="method_not_allowed", allow=_SERVED)
    if raw.count(b"\n") - 2 > most_headers:
        raise TooLarge(
            f"the request has more than {most_headers} headers",
            code="head_too_large",
            fix="Send fewer, or raise the limit http_headers.",
        )
    for name, value in _requests.split(raw):
        head.take(name, value)
    # After the headers were split: an absolute target is held against the Host.
    if head.target[:1] != b"/":
        head.target = _origin_form(head)
    _check_host(head)
    _frame(head)
    # Last: a Connection that names Content-Length must not take the framing away.
    _drop_connection_options(head)
    return head


def read_response(raw: bytes, most_headers: int) -> ResponseHead:
    """Read a response head; `BemaError` (code `bad_upstream`), which the client gets, where the instance broke the protocol."""
    line = _RESPONSE.fullmatch(raw)
    if line is None:
        raise BemaError("the instance's answer does not follow the HTTP/1.1 grammar", code="bad_upstream")
    if raw.count(b"\n") - 2 > most_headers:
        raise BemaError(
            f"the instance's answer has more than {most_headers} headers, the limit http_answer_headers",
            code="bad_upstream",
            fix="Answer with fewer, or raise the limit http_answer_headers.",
        )
    head = ResponseHead(int(line[2]), line[3] or b"", line[1] == b"0")
    try:
        for name, value in _responses.split(raw):
            head.take(name, value)
        _frame(head)
    except BemaError as error:
        if head.status == 101:
            # RFC 9110 7.8: `Upgrade`, and `Connection` that names it; without them httptools stops for a reason of its own
            raise BemaError("the instance switched protocols without naming one", code="bad_upstream") from error
        raise BemaError(f"the instance's answer is malformed: {error.message}", code="bad_upstream") from error
    _drop_connection_options(head)
    return head


def read_trailers(raw: bytes) -> bytes:
    """The trailer lines without the empty line, and without those that may not be trailers; `Invalid` for bad grammar."""
    if _TRAILERS.fullmatch(raw) is None:
        raise _bad("the trailers do not follow the HTTP/1.1 grammar")
    lines = raw.split(b"\r\n")[:-2]
    # A recipient merges trailers into the head that it has acted upon.
    kept = [line for line in lines if line.partition(b":")[0].lower() not in _OURS | _UNSAFE_TO_DROP]
    return b"".join(line + b"\r\n" for line in kept)


def hopeless(part: bytes, checked: int = 0) -> bool:
    """Whether no continuation can make an acceptable head of `part`, whose first `checked` bytes were found harmless.

    The last of those is looked at again, and with it what stands before: a cut may lie anywhere.
    """
    return _HOPELESS.search(part, max(0, checked - 1)) is not None


def tokens(value: bytes) -> list[bytes]:
    """The comma-separated tokens of a header value, in lower case."""
    return [token.strip() for token in value.lower().split(b",")] if value else []


def _merged(ours: dict[bytes, bytes], name: bytes, value: bytes) -> bytes:
    if name not in ours:
        return value
    if name in _ONCE:
        raise _bad(f"more than one {name.decode()} header")
    return ours[name] + b", " + value


class _Kept:
    """An httptools parser that is used for one head after another, as long as it stands between two messages."""

    # made anew only after a head that left it inside of a message, where it would take the next head for a body

    def __init__(self, make: Callable[[Any], httptools.HttpRequestParser | httptools.HttpResponseParser]) -> None:
        self._make = make
        self._parser = make(self)
        self._found: list[tuple[bytes, bytes]] = []
        self._between = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._found.append((name, value))

    def on_message_complete(self) -> None:
        self._between = self._parser.should_keep_alive()

    def split(self, raw: bytes) -> list[tuple[bytes, bytes]]:
        """The headers of a head."""
        self._found = []
        self._between = keep = False
        try:
            self._parser.feed_data(raw)
            keep = self._between
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserInvalidMethodError as error:
            raise Invalid("the method is unknown", code="not_supported") from error
        except httptools.HttpParserError as error:
            raise _bad(f"the head is malformed: {error}") from error
        finally:
            if not keep:
                self._parser = self._make(self)
        return self._found


_requests = _Kept(httptools.HttpRequestParser)
_responses = _Kept(httptools.HttpResponseParser)


def _origin_form(head: RequestHead) -> bytes:
    """The path of an absolute target (RFC 9112 3.2.2), whose authority must be the Host's."""
    scheme, found, rest = head.target.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    if scheme.lower() != b"http" or not found or authority.lower() != head.ours.get(b"host", b"").lower():
        raise _bad("the request target is neither a path nor this host's address")
    return slash + path or b"/"


def _check_host(head: RequestHead) -> None:
    host = head.ours.get(b"host")
    if host is None:
        raise _bad("no Host header")
    if not _is_host(host):
        raise _bad("the Host header is not a host")
    head.host = host


@functools.lru_cache(maxsize=256)
def _is_host(host: bytes) -> bool:
    return _HOST.fullmatch(host) is not None


def _frame(head: RequestHead | ResponseHead) -> None:
    coding, length = head.ours.get(b"transfer-encoding"), head.ours.get(b"content-length")
    head.chunked, head.length = coding is not None, None
    # RFC 9112 6.3 lets a recipient prefer transfer-encoding; a peer that prefers the length reads another message
    if coding is not None:
        if length is not None:
            raise _bad("both content-length and transfer-encoding")
        if coding.lower() != b"chunked" or head.http10:
            raise _bad("a transfer-encoding other than chunked")
    elif length is not None:
        if _LENGTH.fullmatch(length) is None:
            raise _bad("content-length is not a number")
        head.length = int(length)


def _drop_connection_options(head: RequestHead | ResponseHead) -> None:
    named = head.ours.get(b"connection")
    if named is None:
        return
    # RFC 9110 7.6.1: the headers that Connection names are for this hop only
    options = set(tokens(named))
    head.headers = [header for header in head.headers if header[0].lower() not in options]


def _bad(message: str) -> Invalid:
    return Invalid(message, code="bad_request")

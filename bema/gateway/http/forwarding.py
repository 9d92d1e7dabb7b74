"""What each side is shown of the other's head. Pure.

Law: `Host`, `X-Forwarded-*`, `Forwarded`, `traceparent` and the request id are written by us alone; hop-by-hop headers end here
(the guard took them out); `Authorization` and everything else pass as they came.
"""

from __future__ import annotations

import re
from random import getrandbits

from bema.core.instance import Instance
from bema.core.start_report import StartReport
from bema.gateway.http.heads import RequestHead, ResponseHead, tokens
from bema.gateway.routing.decision import Forward

__all__ = ["request_head", "response_head", "start_timing", "status_line", "trace"]

_ABSOLUTE = re.compile(rb"(?i)https?://([^/?#]*)")
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_COOKIE_PATH = re.compile(rb'(?i)(;[ \t]*path[ \t]*=[ \t]*"?)(/[^;"]*[^;"\t ]|/)')
_COOKIE_PATHS = re.compile(rb"(?i);[ \t]*path(?:[ \t]*=[ \t]*([^;]*))?(?=;|\Z)")


def request_head(head: RequestHead, to: Forward, peer: bytes, authority: bytes, trace: str) -> bytes:
    """The head an instance receives. `authority` is ours on loopback: servers that guard against DNS rebinding
    accept it; `trace` is the traceparent of this hop."""
    parts = [head.method, b" ", to.target, b" HTTP/1.1\r\nhost: ", authority, b"\r\n"]
    for name, value in head.headers:
        parts += (name, b": ", value, b"\r\n")
    ours = head.ours
    if b"connection" in ours or b"te" in ours or b"expect" in ours:
        parts.append(_passed_on(head))
    if head.chunked:
        parts.append(b"transfer-encoding: chunked\r\n")
    elif head.length is not None:
        parts.append(b"content-length: %d\r\n" % head.length)
    # RFC 7239 6: an IPv6 address has colons, so it is quoted and bracketed there.
    sender = b'"[%b]"' % peer if b":" in peer else peer
    parts.append(
        b"x-forwarded-for: %b\r\nx-forwarded-proto: http\r\nx-forwarded-host: %b\r\nx-forwarded-prefix: %b\r\n"
        b'forwarded: for=%b;host="%b";proto=http\r\nx-request-id: %b\r\ntraceparent: %b\r\n\r\n'
        % (peer, head.host, to.prefix, sender, head.host, trace[3:35].encode(), trace.encode())
    )
    return b"".join(parts)


def response_head(
    head: ResponseHead, request: RequestHead, to: Forward, authority: bytes, framing: bytes, request_id: bytes
) -> bytes:
    """The head a client receives; `framing` is the block of lines that delimit the body and say whether we close."""
    parts = [status_line(head)]
    for name, value in head.headers:
        # The lengths of Location, Set-Cookie and Content-Location: most headers cost one
        # comparison.
        if len(name) in (8, 10, 16):
            value = _under_prefix(name.lower(), value, request, authority, to.prefix)
        parts += (name, b": ", value, b"\r\n")
    parts += (framing, b"x-request-id: ", request_id, b"\r\n\r\n")
    return b"".join(parts)


def trace(head: RequestHead | None) -> str:
    """The traceparent of this hop: the client's trace with a new span, or a new trace.

    Random enough to tell traces apart, and no secret: not worth a system call per request.
    """
    given = head.ours.get(b"traceparent") if head is not None else None
    if given is not None and _TRACEPARENT.fullmatch(given):
        return f"00-{given[3:35].decode()}-{getrandbits(64):016x}-{given[53:].decode()}"
    made = f"{getrandbits(192):048x}"
    return f"00-{made[:32]}-{made[32:]}-01"


def start_timing(instance: Instance) -> tuple[bytes, bytes]:
    """The header that says how an instance was started that a request waited for, and in how many milliseconds."""
    kind, milliseconds = StartReport.of(instance)
    return b"server-timing", b'bema-start;desc="%b";dur=%d' % (kind.encode(), milliseconds)


def status_line(head: ResponseHead) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)


def _passed_on(head: RequestHead) -> bytes:
    """The connection headers that mean something to the instance: an upgrade, wanted trailers, an expectation."""
    lines = b""
    options = []
    if upgrade := head.upgrade:
        options.append(b"upgrade")
        lines += b"upgrade: " + upgrade + b"\r\n"
    if b"trailers" in tokens(head.ours.get(b"te", b"")):
        options.append(b"te")
        lines += b"te: trailers\r\n"
    if options:
        lines += b"connection: " + b", ".join(options) + b"\r\n"
    if head.expects_continue:
        lines += b"expect: 100-continue\r\n"
    return lines


def _under_prefix(name: bytes, value: bytes, request: RequestHead, authority: bytes, prefix: bytes) -> bytes:
    if name in (b"location", b"content-location"):
        return _rebased(value, (request.host, authority), prefix)
    if name == b"set-cookie":
        root = request.target.partition(b"?")[0] == prefix
        return _cookie(value, prefix, root)
    return value


def _cookie(value: bytes, prefix: bytes, root: bool) -> bytes:
    """A cookie that a browser sends to its own deployment alone.

    Each Path is put under the prefix. For browsers the last one counts, and one that does not begin with a slash, such as
    a quoted one, counts as none (RFC 6265 5.2.4, 5.3); others, curl among them, read inside of the quotes.
    """
    paths = _COOKIE_PATHS.findall(value)
    value = _COOKIE_PATH.sub(lambda found: found[1] + _below(found[2], prefix), value)
    if root and not (paths and paths[-1].startswith(b"/")):
        # Without a Path a browser takes the folder of the address (5.1.4). That of `/gateway/ID` is `/gateway`, which is
        # every deployment's.
        value += b"; Path=" + prefix
    return value


def _rebased(url: bytes, authorities: tuple[bytes, ...], prefix: bytes) -> bytes:
    """A link of an instance to itself, put under the prefix; a relative one and one to elsewhere stay as they are."""
    # An instance knows itself by the Host we gave it, or by X-Forwarded-Host: both are the same
    # place.
    if absolute := _ABSOLUTE.match(url):
        if absolute[1].lower() not in {authority.lower() for authority in authorities}:
            return url
        url = url[absolute.end() :]
        return _below(url if url.startswith(b"/") else b"/" + url, prefix)
    return _below(url, prefix) if url.startswith(b"/") and not url.startswith(b"//") else url


def _below(path: bytes, prefix: bytes) -> bytes:
    inside = path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/", b"?", b"#")
    return path if inside else prefix + path

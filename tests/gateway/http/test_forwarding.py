"""What each side is shown of the other's head."""

from __future__ import annotations

import pytest

from bema.gateway.http.forwarding import request_head, response_head, trace
from bema.gateway.http.heads import read_request, read_response
from bema.gateway.routing.decision import Forward

TO = Forward("id", b"/gateway/id", b"/mcp?x=%2F")
AUTHORITY = b"127.0.0.1:8700"
TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def shown(*lines: bytes, peer: bytes = b"127.0.0.1") -> list[bytes]:
    """The lines an instance receives for a request with these headers."""
    raw = b"\r\n".join((b"POST /gateway/id/mcp?x=%2F HTTP/1.1", b"Host: bema.localhost:8700", *lines, b"", b""))
    return request_head(read_request(raw, 100), TO, peer, AUTHORITY, TRACE).split(b"\r\n")


def answered(*lines: bytes, target: bytes = b"/gateway/id/") -> list[bytes]:
    request = read_request(b"GET " + target + b" HTTP/1.1\r\nHost: LOCALHOST:8700\r\n\r\n", 100)
    head = read_response(b"\r\n".join((b"HTTP/1.1 307 Gone Elsewhere", *lines, b"", b"")), 100)
    return response_head(head, request, TO, AUTHORITY, b"content-length: 0\r\n", b"abc").split(b"\r\n")


def test_an_instance_sees_our_loopback_authority_and_who_asked():
    lines = shown(b"Authorization: Bearer theirs", b"X-Forwarded-For: 6.6.6.6", b"Origin: http://localhost")
    assert lines == [
        b"POST /mcp?x=%2F HTTP/1.1",
        b"host: 127.0.0.1:8700",
        b"Authorization: Bearer theirs",
        b"x-forwarded-for: 127.0.0.1",
        b"x-forwarded-proto: http",
        b"x-forwarded-host: bema.localhost:8700",
        b"x-forwarded-prefix: /gateway/id",
        b'forwarded: for=127.0.0.1;host="bema.localhost:8700";proto=http',
        b"x-request-id: 0123456789abcdef0123456789abcdef",
        b"traceparent: " + TRACE.encode(),
        b"",
        b"",
    ]


def test_an_ipv6_client_is_quoted_where_the_grammar_asks():
    assert b'forwarded: for="[::1]";host="bema.localhost:8700";proto=http' in shown(peer=b"::1")


def test_connection_headers_are_made_anew():
    lines = shown(b"Connection: upgrade, te, x-own", b"Upgrade: websocket", b"TE: trailers, gzip", b"X-Own: 1")
    assert lines[2:5] == [b"upgrade: websocket", b"te: trailers", b"connection: upgrade, te"]
    assert not [line for line in lines if line.lower().startswith(b"x-own")]


def test_framing_is_made_anew():
    assert b"content-length: 3" in shown(b"Content-Length: 003")
    assert b"transfer-encoding: chunked" in shown(b"Transfer-Encoding: Chunked")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"/mcp/", b"/gateway/id/mcp/"),
        (b"/gateway/id/mcp/", b"/gateway/id/mcp/"),
        (b"/gateway/idx", b"/gateway/id/gateway/idx"),
        (b"http://127.0.0.1:8700/mcp/?a", b"/gateway/id/mcp/?a"),
        (b"http://localhost:8700/gateway/id/mcp/", b"/gateway/id/mcp/"),
        (b"http://127.0.0.1:8700", b"/gateway/id/"),
        (b"https://elsewhere.example/x", b"https://elsewhere.example/x"),
        (b"//elsewhere.example/x", b"//elsewhere.example/x"),
        (b"next", b"next"),
    ],
)
def test_a_link_to_the_instance_itself_is_put_under_the_prefix(given, expected):
    assert b"location: " + expected in answered(b"location: " + given)


def test_cookies_stay_with_their_deployment():
    lines = answered(b"set-cookie: a=1; Path=/; HttpOnly", b"Set-Cookie: b=2", b"set-cookie: c=3; path=/gateway/id/x")
    assert b"set-cookie: a=1; Path=/gateway/id/; HttpOnly" in lines
    assert b"Set-Cookie: b=2" in lines
    assert b"set-cookie: c=3; path=/gateway/id/x" in lines


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"a=1; path = /", b"a=1; path = /gateway/id/"),
        (b"a=1;PATH=/x ;Secure", b"a=1;PATH=/gateway/id/x ;Secure"),
        (b"a=1;\tpAtH\t=\t/x", b"a=1;\tpAtH\t=\t/gateway/id/x"),
        # a browser takes the last, others the first
        (b"a=1; Path=/x; Path=/y", b"a=1; Path=/gateway/id/x; Path=/gateway/id/y"),
        # a browser reads the quote as no path, and then takes the folder of the address; curl takes the quotes off
        (b'a=1; Path="/"', b'a=1; Path="/gateway/id/"'),
        (b'a=1; Path="/x"; Path=/y', b'a=1; Path="/gateway/id/x"; Path=/gateway/id/y'),
        (b"a=1; Path=/gateway/idx", b"a=1; Path=/gateway/id/gateway/idx"),
        (b"a=1; Path=/gateway/id", b"a=1; Path=/gateway/id"),
        (b"a=1; Path= /gateway/id \t; Secure", b"a=1; Path= /gateway/id \t; Secure"),
        # no Path of a cookie
        (b"path=/; HttpOnly", b"path=/; HttpOnly"),
        (b"a=1; xpath=/", b"a=1; xpath=/"),
        (b"a=1; Path=relative", b"a=1; Path=relative"),
        (b"a=1; Path=; Path", b"a=1; Path=; Path"),
    ],
)
def test_every_spelling_of_a_cookie_path_is_put_under_the_prefix(given, expected):
    assert b"set-cookie: " + expected in answered(b"set-cookie: " + given, target=b"/gateway/id/a")


@pytest.mark.parametrize("given", [b"a=1", b"a=1; Path", b"a=1; Path=", b'a=1; Path="/"', b"a=1; path=/x; path=y"])
@pytest.mark.parametrize("target", [b"/gateway/id", b"/gateway/id?x=/"])
def test_a_cookie_without_a_path_is_not_sent_to_every_deployment(given, target):
    # a browser would take the folder of the address, which is /gateway
    (cookie,) = [line for line in answered(b"set-cookie: " + given, target=target) if line.startswith(b"set-cookie")]
    assert cookie.endswith(b"; Path=/gateway/id")


def test_an_answer_keeps_its_reason_and_loses_its_hop_by_hop_headers():
    lines = answered(
        b"Connection: keep-alive, X-Own", b"X-Own: 1", b"Keep-Alive: 5", b"X-Accel-Buffering: no", b"X-Request-Id: z"
    )
    assert lines == [
        b"HTTP/1.1 307 Gone Elsewhere",
        b"X-Accel-Buffering: no",
        b"content-length: 0",
        b"x-request-id: abc",
        b"",
        b"",
    ]


def test_a_trace_is_continued_or_begun():
    def asked(*lines: bytes):
        return trace(read_request(b"\r\n".join((b"GET / HTTP/1.1", b"Host: a", *lines, b"", b"")), 10))

    continued = asked(b"traceparent: " + TRACE.encode())
    assert continued[:36] == TRACE[:36]
    assert continued[36:52] != TRACE[36:52]
    assert asked(b"traceparent: 00-" + b"0" * 32 + b"-0123456789abcdef-01")[3:35] != "0" * 32
    assert asked() != asked()

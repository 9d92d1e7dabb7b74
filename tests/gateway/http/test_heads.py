"""The guard: what may be forwarded, and the corpus of what never is."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import BemaError
from bema.gateway.http.heads import hopeless, read_request, read_response, read_trailers

HOST = b"Host: localhost\r\n"
TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read(raw: bytes, most: int = 100):
    return read_request(raw, most)


def refused(raw: bytes) -> str:
    with pytest.raises(BemaError) as error:
        read(raw)
    return error.value.code


def test_a_plain_request_keeps_its_headers_as_they_came():
    head = read(
        b"GET /gateway/x?q=%2F HTTP/1.1\r\n" + HOST + b"Authorization: Bearer t\r\nMcp-Name: =?base64?eA==?=\r\n\r\n"
    )
    assert (head.method, head.target, head.host) == (b"GET", b"/gateway/x?q=%2F", b"localhost")
    assert head.headers == [(b"Authorization", b"Bearer t"), (b"Mcp-Name", b"=?base64?eA==?=")]
    assert (head.length, head.chunked, head.closes) == (None, False, False)


SMUGGLING = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "host with user info": b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "length and coding": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding and length": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "equal lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
    "listed lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3, 3\r\n\r\n",
    "signed length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +3\r\n\r\n",
    "hexadecimal length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x3\r\n\r\n",
    "endless length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 9999999999999999999999\r\n\r\n",
    "two codings": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "gzip coding": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "unknown coding": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n",
    "quoted coding": b"POST / HTTP/1.1\r\n" + HOST + b'Transfer-Encoding: "chunked"\r\n\r\n',
    "coding in 1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
    "space before colon": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length : 3\r\n\r\n",
    "tab before colon": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding\t: chunked\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "folded first header": b"GET / HTTP/1.1\r\n " + HOST + b"\r\n",
    "bare line feed": b"GET / HTTP/1.1\n" + HOST + b"\r\n",
    "bare line feed in headers": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nTransfer-Encoding: chunked\r\n\r\n",
    "bare carriage return": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rTransfer-Encoding: chunked\r\n\r\n",
    "nul in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
    "control in a name": b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding\x0b: chunked\r\n\r\n",
    "empty name": b"GET / HTTP/1.1\r\n" + HOST + b": x\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\n" + HOST + b"nothing\r\n\r\n",
    "control in the target": b"GET /\x01 HTTP/1.1\r\n" + HOST + b"\r\n",
    "space in the target": b"GET / b HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment in the target": b"GET /#a HTTP/1.1\r\n" + HOST + b"\r\n",
    "raw bytes in the target": b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /\r\n" + HOST + b"\r\n",
    "HTTP/2.0": b"PRI * HTTP/2.0\r\n\r\n",
    "HTTP/1.10": b"GET / HTTP/1.10\r\n" + HOST + b"\r\n",
    "lower-case http": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "target of another host": b"GET http://evil/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "target without a slash": b"GET gateway HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_what_two_parsers_could_read_differently_is_refused(name):
    assert refused(SMUGGLING[name]) == "bad_request"


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE"])
def test_methods_that_address_the_proxy_are_not_served(method):
    assert refused(method + b" / HTTP/1.1\r\n" + HOST + b"\r\n") == "method_not_allowed"


def test_an_unknown_method_is_not_supported():
    assert refused(b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n") == "not_supported"


def test_too_many_headers_are_refused():
    head = b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 100 + b"\r\n"
    assert refused(head) == "head_too_large"
    assert len(read(head, 101).headers) == 100


def test_headers_that_only_we_may_write_do_not_pass():
    head = read(
        b"GET / HTTP/1.1\r\n" + HOST + b"X-Forwarded-For: 1.2.3.4\r\nx-forwarded-anything: x\r\nForwarded: for=x\r\n"
        b"X_Forwarded_Host: evil\r\nX-Real-IP: 1.2.3.4\r\nX-Request-Id: mine\r\nOrigin: http://a\r\nX_Mine: kept\r\n\r\n"
    )
    assert head.headers == [(b"X_Mine", b"kept")]


def test_hop_by_hop_headers_end_here_and_so_do_those_that_connection_names():
    head = read(
        b"GET / HTTP/1.1\r\n"
        + HOST
        + b"Connection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        b"Proxy-Authorization: x\r\nAccept: */*\r\n\r\n"
    )
    assert head.headers == [(b"Accept", b"*/*")]
    assert head.closes


def test_an_absolute_target_of_this_host_is_its_path():
    assert read(b"GET http://LOCALHOST/a?b HTTP/1.1\r\n" + HOST + b"\r\n").target == b"/a?b"
    assert read(b"GET http://localhost HTTP/1.1\r\n" + HOST + b"\r\n").target == b"/"


def test_an_upgrade_is_seen_unless_it_is_h2c_or_has_a_body():
    ask = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: %b\r\n%b\r\n"
    assert read(ask % (b"websocket", b"")).upgrade == b"websocket"
    assert read(ask % (b"h2c", b"HTTP2-Settings: x\r\n")).upgrade is None
    assert read(ask % (b"websocket", b"Content-Length: 3\r\n")).upgrade is None


@pytest.mark.parametrize(
    "before",
    [
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n" + HOST + b"\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
        *SMUGGLING.values(),
    ],
)
def test_no_head_changes_how_the_next_one_is_read(before):
    with contextlib.suppress(BemaError):
        read(before)
    for _ in range(2):
        assert read(b"GET /next HTTP/1.1\r\n" + HOST + b"X: 1\r\n\r\n").headers == [(b"X", b"1")]


@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_no_answer_changes_how_the_next_one_is_read(before):
    with contextlib.suppress(BemaError):
        read_response(before, 100)
    for _ in range(2):
        assert read_response(b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\n", 100).headers == [(b"X", b"1")]


@pytest.mark.parametrize("part", [b"GET / HTTP/1.1\n", b"GET /\x00", b"GET / HTTP/1.1\r\nX: a\rb", b"\x16\x03\x01"])
def test_a_part_that_cannot_become_a_head_is_known_at_once(part):
    assert hopeless(part)


def test_trailers_that_frame_or_route_are_left_out():
    assert read_trailers(b"X-Sum: 1\r\nContent-Length: 5\r\nHost: a\r\n\r\n") == b"X-Sum: 1\r\n"
    with pytest.raises(BemaError):
        read_trailers(b"X-Sum : 1\r\n\r\n")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
)
def test_an_instance_that_breaks_the_protocol_is_named_as_the_cause(raw):
    with pytest.raises(BemaError) as error:
        read_response(raw, 100)
    assert error.value.code == "bad_upstream"


def test_a_status_line_without_a_reason_is_fine():
    assert read_response(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 100).status == 200


names = st.text(TOKEN, min_size=1, max_size=12).filter(
    lambda n: (
        n.lower().replace("_", "-")
        not in (
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "te",
            "upgrade",
            "expect",
            "trailer",
            "forwarded",
        )
        and not n.lower()
        .replace("_", "-")
        .startswith(("x-forwarded-", "proxy-", "x-re", "keep-", "origin", "trace", "http2"))
    )
)
values = st.text([chr(c) for c in range(0x21, 0x7F)], min_size=1, max_size=20)


@given(st.lists(st.tuples(names, values), max_size=20))
def test_whatever_follows_the_grammar_passes_unchanged(headers):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
    head = read(b"GET /x HTTP/1.1\r\n" + HOST + lines + b"\r\n")
    assert head.headers == [(name.encode(), value.encode()) for name, value in headers]


@given(st.binary(max_size=80))
def test_no_bytes_make_the_guard_fail_otherwise_than_by_refusing(junk):
    for raw in (junk + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + HOST + junk + b"\r\n\r\n"):
        try:
            head = read(raw)
        except BemaError as error:
            assert error.problem.http in (400, 405, 431, 501)
        else:
            assert not (head.chunked and head.length is not None)

"""Bodies: however the bytes are cut, the payload is the same; what is malformed is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import BemaError
from bema.gateway.http.bodies import Chunked, SizedBody, UntilClose, chunk, of_response
from bema.gateway.http.heads import read_response


def fed(body, data: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """The payload of `data` given in pieces, and what came after the end."""
    payload, rest = b"", b""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in itertools.pairwise(edges):
        if body.done:
            rest += data[begin:end]
        elif begin < end:
            payload += body.feed(data[begin:end])
            rest = body.rest
    return payload, rest


cuts = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), cuts, st.binary(max_size=20))
def test_chunks_give_their_payload_however_they_arrive(pieces, where, after):
    body = Chunked()
    wire = b"".join(map(chunk, pieces)) + b"0\r\nX-Sum: 9\r\n\r\n" + after
    assert fed(body, wire, where) == (b"".join(pieces), after)
    assert body.done
    assert body.trailers == b"X-Sum: 9\r\n"


@given(st.binary(max_size=300), cuts, st.binary(max_size=20))
def test_a_declared_length_ends_the_body(payload, where, after):
    body = SizedBody(len(payload))
    assert fed(body, payload + after, where) == (payload, after)
    assert body.done


def test_chunk_extensions_are_dropped():
    body = Chunked()
    assert body.feed(b'3;name="a b"\r\nabc\r\n0;x\r\n\r\n') == b"abc"
    assert body.done


@pytest.mark.parametrize(
    "wire",
    [
        b"3\nabc\r\n",
        b"3 \r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b"\r\nabc\r\n",
        b"g\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"3;a\x00\r\nabc\r\n",
        b"fffffffffffffffff\r\n",
        b"0\r\nX : 1\r\n\r\n",
        b"0\r\nbare\nline\r\n\r\n",
        b"1" * 2000,
    ],
)
def test_a_malformed_chunk_is_refused(wire):
    with pytest.raises(BemaError):
        Chunked().feed(wire)


def test_endless_trailers_are_refused():
    body = Chunked()
    with pytest.raises(BemaError):
        for _ in range(100):
            body.feed(b"0\r\n" if not body.trailers and _ == 0 else b"X: " + b"y" * 1000 + b"\r\n")


@pytest.mark.parametrize(
    ("head", "method", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"GET", SizedBody),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET", Chunked),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"GET", UntilClose),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HEAD", type(None)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", type(None)),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"GET", type(None)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"GET", type(None)),
    ],
)
def test_how_an_answer_is_delimited(head, method, kind):
    assert type(of_response(read_response(head, 10), method)) is kind

"""Bytes to batches and back, chunk by chunk, and what hostile bytes get."""

import contextlib
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import Invalid, ProtocolError, TooLarge
from bema.wire.rpc import frames as f
from bema.wire.rpc.reader import BatchReader
from tests.wire.feeding import fed, open_reader

RECORDED = Path(__file__).parents[2] / "data" / "rpc"

bodies = st.one_of(
    st.none(),
    st.integers(-(2**31), 2**31),
    st.binary(max_size=300),
    st.lists(st.binary(max_size=50), max_size=5),
    st.booleans(),
)
batches = st.lists(st.tuples(st.integers(0, 2**63), st.sampled_from(sorted(f.KINDS)), bodies), min_size=1, max_size=20)


def flat(batch):
    return [part for message in batch for part in message]


@given(st.lists(batches, min_size=1, max_size=4), st.integers(1, 500))
def test_what_is_packed_comes_out_whole_whatever_the_chunks(conversation, chunk):
    data = b"".join(f.pack(flat(batch)) for batch in conversation)
    reader = open_reader()
    got = []
    for start in range(0, len(data), chunk):
        got += fed(reader, data[start : start + chunk])
    assert got == [part for batch in conversation for part in flat(batch)]


@given(st.integers(1, 2**40), st.binary(max_size=70_000), st.integers(1, 40_000))
def test_a_large_payload_travels_uncopied_and_reads_as_the_same_message(ident, payload, chunk):
    head, tail = f.pack_large(ident, f.UNARY, ("a.b.c", None, b"", b""), payload)
    assert tail is payload
    data = head + tail + f.pack([0, f.PING, None])
    reader = open_reader()
    got = []
    for start in range(0, len(data), chunk):
        got += fed(reader, data[start : start + chunk])
    assert got == [ident, f.UNARY, ["a.b.c", None, b"", payload], 0, f.PING, None]


def test_a_stream_item_may_be_large_too():
    head, tail = f.pack_large(7, f.ITEM, [b""], b"x" * 100_000)
    assert fed(open_reader(), head + tail) == [7, f.ITEM, [b"x" * 100_000]]


def test_messages_go_three_by_three():
    assert list(f.messages([1, f.ANSWER, b"x", 0, f.PING, None])) == [(1, f.ANSWER, b"x"), (0, f.PING, None)]


def framed(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


HOSTILE = {
    "not msgpack": framed(b"\xc1"),
    "cut msgpack": framed(b"\x93\x01"),
    "no array": framed(msgspec.msgpack.encode({"a": 1})),
    "not three by three": framed(msgspec.msgpack.encode([1, 2])),
    "a number": framed(b"\x01"),
    "deep": framed(b"\x91" * 3000),
    "an extension": framed(b"\x93\x01\x0a\xd4\x05\x00"),
    "claims four billion elements": framed(b"\xdd\xff\xff\xff\xff"),
    "claims four billion bytes": framed(b"\x93\x01\x0a\xc6\xff\xff\xff\xff"),
    "a map with lists for keys": framed(b"\x93\x01\x0a\x81\x90\x01"),
    "text that is not UTF-8": framed(b"\x93\x01\x0a\xa1\xff"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_are_a_protocol_error(data):
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            batch = fed(open_reader(), data)
            # keys that msgspec can read are refused where the body is looked at
            f.read_request(batch[2])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200))
def test_any_bytes_give_messages_or_a_protocol_error(data):
    with contextlib.suppress(ProtocolError):
        assert len(fed(open_reader(), framed(data))) % 3 == 0


def test_a_frame_beyond_the_limit_is_refused_by_its_length_alone():
    with pytest.raises(ProtocolError, match="larger than the limit of 4096 bytes"):
        fed(BatchReader(memoryview(bytearray(64))), struct.pack("<I", 4097))


def test_a_large_frame_in_small_chunks_is_not_quadratic():
    """Each byte is copied once: the reader's own memory never exceeds frame and payload."""
    payload = b"x" * 8_000_000
    head, tail = f.pack_large(1, f.ANSWER, b"", payload)
    data = head + tail
    reader = open_reader()
    tracemalloc.start()
    got = []
    for start in range(0, len(data), 4096):
        got += fed(reader, data[start : start + 4096])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got == [1, f.ANSWER, payload]
    assert peak < 2.2 * len(payload)


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        [],
        ["a", None, b""],
        ["a", None, b"", b"", b""],
        [b"a", None, b"", b""],
        ["a", "soon", b"", b""],
        ["a", True, b"", b""],
        ["a", None, {}, b""],
        ["a", None, b"", "text"],
        ["a", None, b"x" * (f.HEADERS_LIMIT + 1), b""],
    ],
)
def test_a_malformed_request_is_a_protocol_error(body):
    with pytest.raises(ProtocolError):
        f.read_request(body)


def test_a_request_is_route_time_headers_payload():
    route, remaining, headers, payload = f.read_request(["a.b.c", 1.5, b"", b"x"])
    assert (route, remaining, headers, payload) == ("a.b.c", 1.5, b"", b"x")


def test_metadata_round_trips_and_is_bounded():
    metadata = {"traceparent": "00-1-2-01", "användare": "ü"}
    assert f.read_metadata(f.pack_metadata(metadata)) == metadata
    assert f.read_metadata(f.pack_metadata(None)) == {}
    with pytest.raises(TooLarge, match="rpc_headers"):
        f.pack_metadata({"x": "y" * 70_000})
    with pytest.raises(Invalid):
        f.read_metadata(msgspec.msgpack.encode({"x": 1}))
    wrong: Any
    for wrong in ({"\udcff": "v"}, {"k": "\udcff"}, {"k": object()}):
        with pytest.raises(Invalid, match="not text to text"):
            f.pack_metadata(wrong)


@pytest.mark.parametrize("payloads", [None, 3, "text", [], ["text"], [b"x", 1], {b"x": 1, "y": 2}])
def test_items_are_a_list_of_binaries(payloads):
    with pytest.raises(ProtocolError):
        f.payload_size(payloads)


def test_payloads_are_counted_in_bytes():
    assert f.payload_size([b"", b"abc", b"de"]) == 5


def test_a_hello_round_trips_and_ignores_what_it_does_not_know():
    _, kind, body = fed(open_reader(), f.pack_hello(f.Hello(token="secret", name="worker")))
    assert kind == f.HELLO
    hello = f.read_hello({**body, "from a later version": 1})
    assert (hello.token, hello.name, hello.newest) == ("secret", "worker", f.VERSION)
    with pytest.raises(ProtocolError, match="hello"):
        f.read_hello({"token": 1})


def test_the_newest_common_version_is_spoken():
    assert f.agree(f.Hello(oldest=1, newest=9)) == f.VERSION
    with pytest.raises(ProtocolError, match="versions 8 to 9"):
        f.agree(f.Hello(oldest=8, newest=9))


def test_the_conversation_recorded_from_the_first_version_is_still_understood():
    """Both directions of the first version's every kind; these bytes may never need a change."""
    for side in ("caller", "callee"):
        lines = (RECORDED / f"v1-{side}.hex").read_text().splitlines()
        expected = msgspec.json.decode((RECORDED / f"v1-{side}.json").read_bytes())
        reader = open_reader()
        got = [part for line in lines for part in fed(reader, bytes.fromhex(line))]
        assert [_shown(part) for part in got] == expected


def _shown(part):
    """Binary as hexadecimal text, as the recording's JSON has it."""
    if isinstance(part, bytes):
        return "0x" + part.hex()
    return [_shown(item) for item in part] if isinstance(part, list) else part

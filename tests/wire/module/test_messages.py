"""The module channel's operations: the recorded lines of the reference round-trip, and nothing stops the reader."""

import json
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import ProtocolError
from bema.core.instance import EndpointInfo
from bema.core.spec import Shape
from bema.wire.module import messages
from bema.wire.module.envelopes import Envelope, encode, http_response_line, read_from_module, read_to_module
from bema.wire.module.handshake import Announce, Init, Stop, read_init
from bema.wire.module.lines import BadLine, LineReader

RECORDED = [
    json.loads(line)
    for line in (pathlib.Path(__file__).parents[2] / "data/modules/messages.jsonl").read_text().splitlines()
]


def read(record: dict[str, Any], line: bytes) -> Any:
    if record["rust_type"] == "InitBlob":
        return read_init(line)
    return (read_to_module if record["direction"] == "orchestrator->module" else read_from_module)(line)


@pytest.mark.parametrize("record", RECORDED, ids=lambda record: record["name"])
def test_recorded_lines_round_trip_unchanged(record):
    line = json.dumps(record["message"]).encode()
    written = json.loads(encode(read(record, line)))
    assert written == record["message"]
    assert list(written) == list(record["message"])


def test_every_recorded_line_is_there():
    assert len(RECORDED) == 99


@pytest.mark.parametrize("record", RECORDED, ids=lambda record: record["name"])
def test_unknown_fields_are_ignored(record):
    line = json.dumps({**record["message"], "invented_later": {"a": [1]}}).encode()
    assert json.loads(encode(read(record, line))) == record["message"]


def test_types_are_what_the_reference_means():
    assert isinstance(read_to_module(b'{"op":"shutdown"}'), Stop)
    assert isinstance(read_from_module(b'{"op":"announce","listen":"x","endpoints":[]}'), Announce)
    again = read_to_module(b'{"op":"init","orchestrator_api":"","module_id":"m","env":{},"listen":"x"}')
    assert isinstance(again, Init)
    provider = read_from_module(
        b'{"op":"register_service_provider","service_type":{"Custom":"search"},"name":"s","address":"a"}'
    )
    assert provider.service_type == messages.CustomService("search")


@pytest.mark.parametrize("kind", ['"database"', '"Custom(x)"', "{}", "7"])
def test_a_service_type_the_reference_refuses_is_refused(kind):
    with pytest.raises(ProtocolError):
        read_from_module(f'{{"op":"discover_service_providers","service_type":{kind}}}'.encode())


def test_bodies_are_written_as_integers_and_read_as_text_too():
    as_text = read_to_module(
        b'{"op":"http_request","request_id":"1","method":"GET","uri":"/","headers":{},"body":"ok"}'
    )
    assert messages.body_bytes(as_text.body) == b"ok"
    assert messages.body_of(b"ok") == [111, 107]
    assert messages.body_bytes(None) is None
    assert messages.body_of(None) is None


def test_http_responses_come_bare_or_wrapped_and_mean_the_same():
    answer = messages.HttpResponse(request_id="req-1", status_code=200, headers={}, body=[111, 107])
    bare = read_from_module(encode(answer))
    wrapped = read_from_module(http_response_line(answer, "c9f0f895", "billing-1"))
    assert isinstance(wrapped, Envelope)
    assert wrapped.metadata.properties == {"correlation_id": "req-1"}
    assert (bare.request_id, bare.body) == (wrapped.content.request_id, wrapped.content.body)


@pytest.mark.parametrize(
    "line",
    [b"null", b"7", b"[]", b"{}", b'{"op":"dance"}', b'{"op":7}', b'{"op":"secret"}', b"\xff", b'{"content":3}', b"{"],
)
def test_what_is_no_message_is_one_error(line):
    for reader in (read_from_module, read_to_module):
        with pytest.raises(ProtocolError):
            reader(line)


def test_the_next_line_is_still_read():
    reader = LineReader(read_to_module, longest=64)
    said = b'{"op":"dance"}\n' + b"x" * 1000 + b"\n\n{\n" + b'{"op":"shutdown"}\n'
    events = list(reader.feed(said))
    assert [type(event) for event in events] == [BadLine, BadLine, BadLine, Stop]
    assert "longer than 64" in events[1].reason
    assert len(events[1].excerpt) <= 120


def test_a_line_without_end_holds_no_more_than_its_limit():
    reader = LineReader(read_to_module, longest=64)
    bad = [event for _ in range(100) for event in reader.feed(b"y" * 50)]
    assert len(bad) == 1
    assert list(reader.feed(b'\n{"op":"heartbeat"}\n')) == [messages.Heartbeat()]


@given(st.lists(st.integers(1, 40), max_size=30))
def test_lines_are_the_same_however_they_arrive(cuts):
    said = b'{"op":"heartbeat"}\n{"op":"dance"}\n{"op":"secret","name":"A","value":"\xc3\xa9"}\n{"op":"shutdown"}\n'
    reader, at = LineReader(read_to_module), 0
    events: list[Any] = []
    for cut in [*cuts, len(said)]:
        events += reader.feed(said[at : at + cut])
        at += cut
    events += reader.feed(said[at:])
    assert [type(event).__name__ for event in events] == ["Heartbeat", "BadLine", "Secret", "Stop"]


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(noise):
    reader = LineReader(read_from_module, longest=100)
    list(reader.feed(noise))
    assert list(reader.feed(b'\n{"op":"heartbeat_ack"}\n'))[-1] == messages.HeartbeatAck()


def test_a_status_says_the_whole_of_it_and_travels_unchanged():
    said = messages.Status(
        ready=False, stalled=True, operations=[EndpointInfo("ask", Shape.STREAM)], data={"load": [1, None]}
    )
    assert encode(messages.Status(operations=[], data={})) == (
        b'{"op":"status","ready":true,"stalled":false,"operations":[],"data":{}}\n'
    )
    assert read_from_module(encode(said)) == said


def test_what_a_status_leaves_out_is_as_it_was_announced():
    said = read_from_module(b'{"op":"status","ready":false,"mood":"low","operations":null}')
    assert said == messages.Status(ready=False)
    assert (said.stalled, said.operations, said.data) == (False, None, None)


@pytest.mark.parametrize("field", ['"ready":"no"', '"stalled":1', '"operations":["ask"]', '"data":[]'])
def test_a_status_of_other_types_is_none(field):
    with pytest.raises(ProtocolError):
        read_from_module(f'{{"op":"status",{field}}}'.encode())


def test_a_status_is_said_by_the_module_alone():
    with pytest.raises(ProtocolError):
        read_to_module(encode(messages.Status()))

"""The one table of states: what may follow what, and when an instance takes calls."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import ProtocolError
from bema.core.instance import MOVES, EndpointInfo, Instance, State, move
from bema.core.naming import show_instance_id
from bema.core.spec import Shape

states = st.sampled_from(State)
ENDS = {State.GONE, State.FAILED}


def test_every_state_has_its_row():
    assert set(MOVES) == set(State)


@given(states, states)
def test_a_move_is_in_the_table_or_is_refused_by_name(now, to):
    if to in MOVES[now]:
        assert move(now, to) is to
    else:
        with pytest.raises(ProtocolError, match=f"from {now.value} to {to.value}"):
            move(now, to)


@given(st.lists(states, max_size=20))
def test_no_way_leads_back(wishes):
    """An instance is never again in a state it has left: ids are not reused, and neither are lives."""
    now, seen = State.NEW, [State.NEW]
    for wish in wishes:
        if wish in MOVES[now]:
            now = move(now, wish)
            seen.append(now)
    assert len(seen) == len(set(seen))


def test_from_everywhere_but_the_ends_an_instance_can_fail():
    assert {state for state in State if State.FAILED in MOVES[state]} == set(State) - ENDS
    assert all(not MOVES[end] for end in ENDS)


def test_only_a_serving_instance_that_does_not_stall_takes_calls():
    instance = Instance(id=1, namespace="demo", component="worker")
    assert instance.routable()
    assert not msgspec.structs.replace(instance, stalled=True).routable()
    for state in set(State) - {State.SERVING}:
        assert not msgspec.structs.replace(instance, state=state).routable()


def test_an_instance_survives_json_and_msgpack():
    instance = Instance(
        id=2**62 + 5,
        namespace="demo",
        component="worker",
        endpoints=(EndpointInfo("generate", Shape.STREAM),),
        addresses={"rpc": ("unix:/run/x.sock", "tcp:127.0.0.1:4100")},
        data={"model": "small"},
    )
    for codec in (msgspec.json, msgspec.msgpack):
        assert codec.decode(codec.encode(instance), type=Instance) == instance
    assert instance.label == show_instance_id(instance.id)
    assert instance.component_address == "demo.worker"


def test_a_record_of_an_older_bema_has_no_digest_and_an_older_bema_reads_ours():
    class Older(msgspec.Struct):
        id: int
        namespace: str

    assert msgspec.json.decode(b'{"id": 1, "namespace": "a", "component": "b"}', type=Instance).digest == ""
    ours = msgspec.json.encode(Instance(id=1, namespace="a", component="b", digest="d"))
    assert msgspec.json.decode(ours, type=Older) == Older(1, "a")
    assert b"digest" not in msgspec.json.encode(Instance(id=1, namespace="a", component="b"))


def test_a_record_of_a_newer_bema_is_still_read():
    assert msgspec.json.decode(b'{"id": 1, "namespace": "a", "component": "b", "new": 1}', type=Instance).id == 1

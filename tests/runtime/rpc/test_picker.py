"""Pickers choose among candidates."""

from collections import Counter

import pytest

from bema.core import settings
from bema.core.errors import Invalid
from bema.parts import UnknownImplementation
from bema.runtime.rpc.picker import OutgoingCall, PickerFactory, RoundRobin, picker
from tests.runtime.helpers import an_instance

THREE = [an_instance() for _ in range(3)]
CALL = OutgoingCall("demo.worker.generate")
IDLE = dict.fromkeys((i.id for i in THREE), 0)


def picked(name, times, loads=IDLE, candidates=THREE):
    pick = picker(settings.current(), name)
    return Counter(pick(candidates, lambda i: loads[i.id], CALL).id for _ in range(times))


def test_round_robin_gives_each_its_turn():
    assert set(picked("round_robin", 30).values()) == {10}


def test_random_reaches_all():
    assert len(picked("random", 200)) == 3


def test_least_loaded_takes_the_idlest_and_breaks_ties_in_turn():
    assert picked("least_loaded", 9, {**IDLE, THREE[0].id: 5}) == {THREE[1].id: 5, THREE[2].id: 4} or set(
        picked("least_loaded", 10, {**IDLE, THREE[0].id: 5})
    ) == {THREE[1].id, THREE[2].id}
    assert set(picked("least_loaded", 9, {**IDLE, THREE[0].id: 1, THREE[1].id: 1})) == {THREE[2].id}


def test_power_of_two_never_takes_the_busiest_of_three():
    assert THREE[0].id not in picked("power_of_two", 200, {**IDLE, THREE[0].id: 9})
    assert picked("power_of_two", 1, candidates=THREE[:1])


def test_direct_needs_the_instance():
    with pytest.raises(Invalid, match="instance of each call"):
        picked("direct", 1)
    assert picked("direct", 1, candidates=THREE[:1])


def test_an_unknown_picker_is_refused_with_the_known_ones():
    with pytest.raises(UnknownImplementation, match=", ".join(PickerFactory.names())):
        picker(settings.current(), "fastest")


def test_without_a_name_it_is_the_picker_in_use(monkeypatch):
    assert PickerFactory.choose() is RoundRobin
    monkeypatch.setenv("BEMA_PICKER", "direct")
    with pytest.raises(Invalid, match="instance of each call"):
        picker(settings.current())(THREE, lambda instance: 0, CALL)


def test_a_call_has_an_id_of_its_own_and_keeps_it():
    one, other = OutgoingCall("a.b.c", number=1), OutgoingCall("a.b.c", number=2)
    assert one.id != other.id
    assert one.id == OutgoingCall("a.b.c", {"sent": "again"}, number=1).id
    assert (one.route, dict(one.metadata)) == ("a.b.c", {})

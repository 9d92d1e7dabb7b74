"""Which version and which instance a request goes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bema.core.instance import Instance, Terms
from bema.gateway.routing.choice import VERSION, InstanceRoute, Seat, VersionChoice


class Request:
    def __init__(self, **headers: bytes) -> None:
        given_ = {name.replace("_", "-").encode(): value for name, value in headers.items()}
        self.ours: Mapping[bytes, bytes] = {VERSION: given_.pop(VERSION)} if VERSION in given_ else {}
        self._headers = given_

    def header(self, name: bytes) -> bytes | None:
        return self._headers.get(name)


PLAIN = Request()


def shown(choice: VersionChoice, id: int, version: str = "v1", *, takes: bool = True, **fields: object) -> Seat:
    record = Instance(id=id, namespace="t", component="t", deployment="d", version=version, **fields)  # type: ignore[arg-type]
    return choice.put(record, InstanceRoute("d", "http", f"unix:{id}", record) if takes else None)


def told(choice: VersionChoice, request: Request) -> str:
    place = choice.next(request)
    assert place is not None
    return place.instance.version


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.integers(1, 3))
def test_each_version_has_its_share_of_the_requests(weights: list[int], instances: int):
    choice = VersionChoice()
    for number, share in enumerate(weights, 1):
        for instance in range(instances):
            shown(choice, number * 10 + instance, f"v{number}", share=share)
    count = Counter(told(choice, PLAIN) for _ in range(5000))
    for number, share in enumerate(weights, 1):
        assert count[f"v{number}"] == pytest.approx(5000 * share / sum(weights), abs=len(weights))


def test_a_version_without_a_share_is_given_only_who_names_it():
    choice = VersionChoice()
    shown(choice, 1, "v1")
    shown(choice, 2, "v2", share=0)
    assert {told(choice, PLAIN) for _ in range(100)} == {"v1"}
    assert told(choice, Request(bema_version=b"v2")) == "v2"
    assert choice.next(Request(bema_version=b"v3")) is None
    choice.drop(1)
    assert choice.next(PLAIN) is None
    assert choice.route() is None
    assert choice.knows("v2")
    assert not choice.knows("v1")


@pytest.mark.parametrize("sticky", ["header:X-User", "cookie:user"])
def test_equal_values_go_to_one_version_and_few_of_them_move_with_the_shares(sticky: str):
    def users(share: int) -> list[str]:
        choice = VersionChoice()
        shown(choice, 1, "v9", share=100 - share, terms=Terms(sticky=sticky))
        shown(choice, 2, "v10", share=share, terms=Terms(sticky=sticky))
        asked = [
            Request(x_user=b"%d" % n) if sticky.startswith("header") else Request(cookie=b"a=b; user=%d; c" % n)
            for n in range(2000)
        ]
        first = [told(choice, request) for request in asked]
        assert first == [told(choice, request) for request in asked]
        return first

    ten, thirty = users(10), users(30)
    assert ten.count("v10") / 2000 == pytest.approx(0.10, abs=0.03)
    assert thirty.count("v10") / 2000 == pytest.approx(0.30, abs=0.03)
    # whoever has the new version keeps it while it is given more
    assert all(after == "v10" for before, after in zip(ten, thirty, strict=True) if before == "v10")


def test_who_has_no_value_to_stick_by_is_shared_out():
    choice = VersionChoice()
    shown(choice, 1, "v1", share=50, terms=Terms(sticky="cookie:user"))
    shown(choice, 2, "v2", share=50, terms=Terms(sticky="cookie:user"))
    assert Counter(told(choice, PLAIN) for _ in range(100)) == {"v1": 50, "v2": 50}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 40)), max_size=120), st.integers(0, 4))
def test_the_instance_with_the_least_in_flight_takes_it_and_none_takes_more_than_it_says(
    steps: list[int | None], concurrency: int
):
    """A step sends a request, or ends the one of that number."""
    choice, running = VersionChoice(), list[Seat]()
    places = [shown(choice, number, terms=Terms(concurrency=concurrency)) for number in (1, 2, 3)]
    for step in steps:
        if step is not None:
            if step < len(running):
                running.pop(step).in_flight -= 1
            continue
        least = min(place.in_flight for place in places)
        place = choice.next(PLAIN)
        if place is None:
            assert concurrency
            assert least == concurrency
            continue
        assert place.in_flight == least
        place.in_flight += 1
        running.append(place)
        assert not concurrency or place.in_flight <= concurrency


def test_of_equals_each_has_its_turn():
    choice = VersionChoice()
    for number in (1, 2, 3):
        shown(choice, number)
    found = [choice.next(PLAIN) for _ in range(9)]
    assert Counter(place.instance.id for place in found if place) == {1: 3, 2: 3, 3: 3}


def test_one_that_takes_nothing_new_is_counted_on_when_it_does_again():
    choice = VersionChoice()
    place = shown(choice, 1, terms=Terms(concurrency=1))
    place.in_flight += 1
    assert shown(choice, 1, takes=False, terms=Terms(concurrency=1)) is place
    assert choice.next(PLAIN) is None
    assert shown(choice, 1, terms=Terms(concurrency=1)) is place
    assert choice.next(PLAIN) is None
    place.in_flight -= 1
    assert choice.next(PLAIN) is place

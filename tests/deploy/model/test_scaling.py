"""How many replicas what is asked of a deployment calls for, by the clock of a test."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bema.deploy.model.function import Scale
from bema.deploy.model.restarts import SECOND
from bema.deploy.model.scaling import PANIC, STABLE, Load, Usage, Wish

DAWN = 1_700_000_000 * SECOND
GATEWAY = 1
TEN = Scale(concurrency=10)


class Simulation:
    """A deployment whose gateway reports each quarter of a second, and whose replicas are as many as are wished for."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.now = DAWN
        self.usage = Usage(DAWN)
        self.have = 0
        self.since = DAWN
        self.begun = 0
        self.last_use = 0
        self._before = 0

    def quarter(self, asked: int) -> Wish:
        """A quarter of a second in which so many requests are there; as many as find room are in flight."""
        in_flight = min(asked, self.have * self.scale.concurrency)
        busy, self._before = self._before * SECOND // 4, in_flight
        self.now += SECOND // 4
        if asked:
            self.last_use = self.now
        self.usage.told(
            GATEWAY,
            Load(deployment="d", in_flight=in_flight, waiting=asked - in_flight, busy=busy, last_use=self.last_use),
            self.now,
        )
        return self.look()

    def look(self) -> Wish:
        wish = self.usage.wish(self.scale, self.have, self.since, self.now)
        if wish.replicas > self.have:
            self.begun += wish.replicas - self.have
            self.since = self.now
        self.have = wish.replicas
        return wish


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 50), st.integers(1, 12))
def test_requests_to_a_cold_deployment_make_as_many_starts_as_its_concurrency_asks_for(asked, concurrency, most):
    world = Simulation(Scale(max=most, concurrency=concurrency))
    for _ in range(8):
        world.quarter(asked)
    assert world.begun == min(most, math.ceil(asked / concurrency))


def test_steady_requests_keep_as_many_as_they_need():
    world = Simulation(TEN)
    for _ in range(4 * 300):
        world.quarter(30)
    assert (world.have, world.begun) == (3, 3)


def test_fewer_there_are_only_after_a_whole_window():
    world = Simulation(TEN)
    world.quarter(50)
    for _ in range(4 * 120):
        world.quarter(50)
    assert world.have == 5
    kept = [world.quarter(1).replicas for _ in range(4 * 125)]
    assert kept[: STABLE * 4 // SECOND - 4] == [5] * (STABLE * 4 // SECOND - 4)
    assert kept[-1] == 1
    assert kept == sorted(kept, reverse=True)


def test_a_burst_is_answered_within_its_own_window_and_keeps_its_room():
    world = Simulation(Scale(concurrency=10, max=50))
    for _ in range(4 * 120):
        world.quarter(10)
    assert world.have == 1
    world.quarter(200)
    assert world.have == 10, "ten times as many from one look to the next"
    world.quarter(200)
    assert world.have == 20
    for _ in range(4 * PANIC // SECOND):
        world.quarter(0)
    assert world.have == 20


def test_requests_that_come_and_go_between_reports_are_counted_by_their_time():
    """Ten at once for a tenth of a second each quarter: four in flight on average, and never one when it is reported."""
    usage = Usage(DAWN)
    for quarter in range(1, 400):
        now = DAWN + quarter * SECOND // 4
        usage.told(GATEWAY, Load(deployment="d", busy=SECOND, last_use=now), now)
    assert usage.average(now, STABLE) == pytest.approx(4, abs=0.1)
    assert usage.wish(Scale(concurrency=2), 1, DAWN, now).replicas == 2


def test_it_sleeps_when_nobody_used_it_for_so_long_and_says_when_to_look():
    scale = Scale(idle_after=10 * SECOND)
    world = Simulation(scale)
    world.quarter(1)
    used = world.now
    wish, now = world.quarter(0), world.now
    seen = []
    while wish.replicas:
        assert wish.again > 0
        now += wish.again
        seen.append(now)
        wish = world.usage.wish(scale, 1, DAWN, now)
    assert used + 10 * SECOND <= now <= used + 11 * SECOND
    assert len(seen) < 30, "it is looked at now and then, and not all the time"


def test_what_is_in_flight_for_an_hour_keeps_it_awake_though_nothing_is_reported():
    scale = Scale(idle_after=10 * SECOND)
    usage = Usage(DAWN)
    usage.told(GATEWAY, Load(deployment="d", in_flight=1), DAWN)
    assert usage.wish(scale, 1, DAWN, DAWN + 3600 * SECOND).replicas == 1
    usage.forget((GATEWAY,), DAWN + 3600 * SECOND)
    assert usage.wish(scale, 1, DAWN, DAWN + 3605 * SECOND).replicas == 1
    assert usage.wish(scale, 1, DAWN, DAWN + 3611 * SECOND).replicas == 0


def test_gateways_add_up():
    usage = Usage(DAWN)
    for gateway in (1, 2, 3):
        usage.told(gateway, Load(deployment="d", in_flight=8, waiting=2), DAWN)
    assert (usage.in_flight, usage.waiting) == (24, 6)
    assert usage.wish(TEN, 2, DAWN, DAWN).replicas == 3


def test_who_took_over_keeps_what_there_is_for_a_window():
    usage = Usage(DAWN)
    assert usage.wish(TEN, 4, DAWN - 3600 * SECOND, DAWN + 59 * SECOND).replicas == 4
    assert usage.wish(TEN, 4, DAWN - 3600 * SECOND, DAWN + 61 * SECOND).replicas == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 120)), max_size=20), st.integers(0, 3), st.data())
def test_it_stays_within_its_bounds_and_nobody_waits_while_there_may_be_more(phases: Any, least: int, data: Any):
    most = data.draw(st.integers(max(1, least), 8))
    world = Simulation(Scale(min=least, max=most, concurrency=data.draw(st.integers(1, 20)), idle_after=5 * SECOND))
    for quarters, asked in phases:
        for _ in range(quarters):
            wish = world.quarter(asked)
            assert least <= wish.replicas <= most
            if asked:
                room = world.have * world.scale.concurrency
                assert world.have >= 1
                assert room >= asked or world.have == most or world.have >= 10


def test_a_day_costs_what_it_needs():
    """A day of a function that is busy by day and asleep by night; the room is never more than thrice what was needed."""
    world = Simulation(Scale(concurrency=20, max=40))
    asleep = waited = spent = needed = 0
    for minute in range(24 * 60):
        hour = minute / 60
        asked = (
            0 if hour < 6 else round(100 + 80 * math.sin((hour - 6) / 18 * math.pi)) + (150 if minute % 97 == 0 else 0)
        )
        for _ in range(4 * 60):
            in_front = world.have
            world.quarter(asked)
            waited += asked > in_front * 20
            asleep += world.have == 0
            spent += world.have
            needed += math.ceil(asked / 20)
    assert asleep >= 4 * 60 * 60 * 5, "five hours of the night"
    assert waited <= 4 * 60, "quarters of a second in which somebody waited, in a day"
    assert spent < 3 * needed


def test_at_rest_nothing_is_to_be_looked_at():
    usage = Usage(DAWN)
    assert usage.wish(Scale(min=1), 1, DAWN, DAWN + 7200 * SECOND) == Wish(1)
    assert usage.wish(Scale(), 0, 0, DAWN + 7200 * SECOND) == Wish(0)

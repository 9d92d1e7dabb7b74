"""The injected clock: durations from one reading, instants from the other."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.clock import Clock, ManualClock, SystemClock


def test_the_systems_clock_is_the_systems():
    clock: Clock = SystemClock()
    before = time.time_ns() // 1000
    assert before <= clock.now() <= time.time_ns() // 1000
    first = clock.monotonic()
    assert first <= clock.monotonic() <= time.monotonic()


@given(st.lists(st.floats(0, 10_000), max_size=20))
def test_a_manual_clock_moves_only_when_told_and_both_readings_agree(steps):
    clock = ManualClock(start=1_000_000)
    for step in steps:
        clock.advance(step)
    assert clock.monotonic() == pytest.approx(sum(steps))
    assert clock.now() == 1_000_000 + round(clock.monotonic() * 1_000_000)

"""What a look at the clock makes of a schedule: fired once, missed once or not at all, never twice."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.timetable import timetable
from bema.jobs.schedule import GRACE, WRONG_CLOCK, Schedule, reconciled

SECOND = 1_000_000
HOUR, DAY = 3600 * SECOND, 86_400 * SECOND
MIDNIGHT = 1_700_006_400 * SECOND  # 2023-11-15T00:00Z


def hourly(**more) -> Schedule:
    declared = Schedule(name="hourly", route="t.t.f", timetable=timetable("0 * * * *"), **more)
    return reconciled(None, declared, MIDNIGHT + HOUR // 2)


def looked(schedule: Schedule, *instants: int) -> list[int]:
    """The hours since midnight that fire, in looks at these instants."""
    found = []
    for now in instants:
        schedule, fires = schedule.due(now)
        if fires:
            found.append((schedule.passed - MIDNIGHT) // HOUR)
    return found


def test_it_fires_at_its_instant_and_not_before():
    assert looked(hourly(), MIDNIGHT + HOUR - 1, MIDNIGHT + HOUR, MIDNIGHT + HOUR + 1) == [1]


def test_what_lay_before_it_was_declared_is_not_missed():
    assert looked(hourly(), MIDNIGHT + HOUR // 2 + 1) == []


def test_what_was_missed_is_made_up_for_once_and_nothing_floods():
    assert looked(hourly(), MIDNIGHT + 9 * HOUR + HOUR // 2, MIDNIGHT + 10 * HOUR) == [9, 10]


def test_or_not_at_all_by_choice():
    late = MIDNIGHT + 9 * HOUR + HOUR // 2
    assert looked(hourly(missed="skip"), late, MIDNIGHT + 10 * HOUR) == [10]


def test_a_busy_process_is_late_and_misses_nothing():
    assert looked(hourly(missed="skip"), MIDNIGHT + HOUR + GRACE) == [1]
    assert looked(hourly(missed="skip"), MIDNIGHT + HOUR + GRACE + 1) == []


@pytest.mark.parametrize("back", [HOUR, DAY])
def test_a_clock_that_is_set_back_fires_nothing_twice(back):
    schedule, fires = hourly().due(MIDNIGHT + 30 * HOUR)
    assert fires
    assert schedule.rewound(MIDNIGHT + 30 * HOUR - back) is schedule
    hours = [MIDNIGHT + 30 * HOUR - back + n * HOUR for n in range(32)]
    assert looked(schedule, *(now for now in hours if now <= MIDNIGHT + 31 * HOUR)) == [31]


def test_a_clock_that_was_years_ahead_silences_nothing_for_years():
    schedule, fires = hourly().due(MIDNIGHT + 400 * DAY)
    assert fires
    now = MIDNIGHT + 5 * HOUR
    assert looked(schedule.rewound(now), now + 1, now + HOUR) == [6]


def test_an_interval_begun_on_a_wrong_clock_is_counted_from_now():
    declared = Schedule(name="s", route="t.t.f", timetable=timetable(every=3600))
    schedule = reconciled(None, declared, MIDNIGHT + 400 * DAY).rewound(MIDNIGHT)
    assert schedule.next == MIDNIGHT + HOUR


def test_a_pause_that_ends_on_a_clock_set_back_fires_nothing_again():
    fired, fires = hourly().due(MIDNIGHT + 30 * HOUR)
    assert fires
    paused = Schedule(**{**fields(fired), "paused": True})
    assert looked(paused.resumed(MIDNIGHT + 28 * HOUR), MIDNIGHT + 29 * HOUR, MIDNIGHT + 31 * HOUR) == [31]


def test_a_clock_that_is_set_forward_makes_up_once():
    assert looked(hourly(), MIDNIGHT + HOUR, MIDNIGHT + HOUR + DAY) == [1, 25]


def test_a_pause_and_a_resume_do_not_flood():
    paused = Schedule(**{**fields(hourly()), "paused": True})
    late = MIDNIGHT + 50 * HOUR + 5
    assert looked(paused, MIDNIGHT + 20 * HOUR, late) == []
    assert paused.next is None
    assert looked(paused.resumed(late), late, MIDNIGHT + 51 * HOUR) == [51]
    assert looked(paused.resumed(late, missed=True), late, MIDNIGHT + 51 * HOUR) == [50, 51], "once, by choice"


def test_a_schedule_that_runs_is_not_resumed():
    assert hourly().resumed(MIDNIGHT + 50 * HOUR) == hourly()


def test_an_instant_that_passed_while_its_service_came_up_fires_once():
    at = dt.datetime.fromtimestamp(MIDNIGHT // SECOND, dt.UTC)
    for missed, fires in (("once", True), ("skip", False)):
        once = Schedule(name="once", route="t.t.f", timetable=timetable(at=at), missed=missed)  # type: ignore[arg-type]
        looked, fired = reconciled(None, once, MIDNIGHT + HOUR).due(MIDNIGHT + HOUR)
        assert fired is fires
        assert looked.next is None
        assert looked.due(MIDNIGHT + 2 * HOUR) == (looked, False)
        assert reconciled(looked, once, MIDNIGHT + 3 * HOUR).next is None
        assert looked.rewound(MIDNIGHT - WRONG_CLOCK - 1).next is None, "a clock far back brings it no second time"


def test_what_changes_keeps_its_past_and_a_new_timetable_begins_now():
    kept = Schedule(**{**fields(hourly()), "fired": 5, "call": "c", "paused": True})
    now = MIDNIGHT + 7 * HOUR
    moved = reconciled(kept, Schedule(name="hourly", route="t.t.other", timetable=kept.timetable), now)
    assert (moved.route, moved.passed, moved.since, moved.paused) == ("t.t.other", kept.passed, kept.since, True)
    changed = reconciled(kept, Schedule(name="hourly", route="t.t.f", timetable=timetable(every=60)), now)
    assert (changed.passed, changed.since, changed.fired, changed.paused) == (now, now, 5, True)


def fields(schedule: Schedule) -> dict[str, Any]:
    return {name: getattr(schedule, name) for name in schedule.__struct_fields__}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("passes"), st.integers(0, 3 * DAY)),
        st.tuples(st.just("set back"), st.integers(0, 2 * DAY)),
        st.tuples(st.sampled_from(["paused", "resumed", "declared anew"]), st.just(0)),
    ),
    max_size=30,
)


@given(st.sampled_from(["0 * * * *", "*/5 * * * *", "30 2 * * *"]), st.sampled_from(["once", "skip"]), STEPS)
def test_whatever_happens_nothing_fires_twice_or_early_and_a_look_fires_one(line, missed, steps):
    declared = Schedule(name="s", route="t.t.f", timetable=timetable(line, tz="Europe/Berlin"), missed=missed)
    now, fired = MIDNIGHT, list[int]()
    schedule = reconciled(None, declared, now)
    for what, length in steps:
        if what == "passes":
            now += length
        elif what == "set back":
            now -= length
        elif what == "paused":
            schedule = Schedule(**{**fields(schedule), "paused": True})
        elif what == "resumed":
            schedule = schedule.resumed(now)
        else:
            schedule = reconciled(schedule, declared, now)
        schedule, fires = schedule.due(now)
        if fires:
            assert not schedule.paused
            assert schedule.passed <= now
            fired.append(schedule.passed)
        assert schedule.paused or schedule.next is None or schedule.next > now or schedule.due(now)[0] is schedule
    assert fired == sorted(set(fired))

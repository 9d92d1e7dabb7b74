"""When something is due: cron lines through both changes of clocks, intervals and instants."""

import datetime as dt
import sys
import time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import BadDeclaration, Refused
from bema.core.timetable import Timetable, iso, timetable

BERLIN = "Europe/Berlin"
HOUR = 3600 * 1_000_000
DAY = 24 * HOUR


def instant(text: str) -> int:
    """Of a time with its offset: `2026-10-25T02:30+01:00`."""
    return round(dt.datetime.fromisoformat(text).timestamp()) * 1_000_000


def coming(when: Timetable, after: str, count: int) -> list[str]:
    zone, at, found = ZoneInfo(when.tz), instant(after), []
    for _ in range(count):
        following = when.next_after(at)
        assert following is not None
        at = following
        found.append(dt.datetime.fromtimestamp(at / 1_000_000, zone).isoformat(timespec="minutes"))
    return found


def test_a_cron_line_goes_by_the_clock_of_its_zone():
    nightly = timetable("0 3 * * *", tz=BERLIN)
    assert coming(nightly, "2026-06-01T12:00+02:00", 2) == ["2026-06-02T03:00+02:00", "2026-06-03T03:00+02:00"]
    assert coming(nightly, "2026-12-01T12:00+01:00", 1) == ["2026-12-02T03:00+01:00"]
    assert coming(timetable("0 3 * * *"), "2026-06-01T12:00+00:00", 1) == ["2026-06-02T03:00+00:00"]


def test_a_time_that_the_change_to_summer_leaves_out_comes_at_its_end():
    # 2027-03-28: at 02:00 it is 03:00
    assert coming(timetable("30 2 * * *", tz=BERLIN), "2027-03-27T12:00+01:00", 2) == [
        "2027-03-28T03:00+02:00",
        "2027-03-29T02:30+02:00",
    ]


def test_two_times_that_the_change_to_summer_leaves_out_are_one():
    assert coming(timetable("0,30 2 * * *", tz=BERLIN), "2027-03-27T12:00+01:00", 2) == [
        "2027-03-28T03:00+02:00",
        "2027-03-29T02:00+02:00",
    ]


def test_a_time_that_the_change_to_winter_brings_twice_comes_once():
    # 2026-10-25: at 03:00 it is 02:00 again
    nightly = timetable("30 2 * * *", tz=BERLIN)
    assert coming(nightly, "2026-10-24T12:00+02:00", 2) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    assert coming(nightly, "2026-10-25T02:10+01:00", 1) == ["2026-10-26T02:30+01:00"], "asked between the two"


def test_what_comes_every_half_hour_goes_by_the_time_that_passes():
    half = timetable("*/30 * * * *", tz=BERLIN)
    assert coming(half, "2026-10-25T02:15+02:00", 3) == [
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:00+01:00",
        "2026-10-25T02:30+01:00",
    ]
    assert coming(half, "2027-03-28T01:15+01:00", 2) == ["2027-03-28T01:30+01:00", "2027-03-28T03:00+02:00"]


def test_an_interval_is_counted_from_where_it_began():
    when = timetable(every=90)
    assert when.next_after(100_000_000, since=100_000_000) == 190_000_000
    assert when.next_after(190_000_000, since=100_000_000) == 280_000_000
    assert when.next_after(5, since=100_000_000) == 190_000_000, "not before it began"
    assert when.latest(0, 370_000_000, since=100_000_000) == 370_000_000


def test_an_instant_comes_once():
    when = timetable(at=dt.datetime(2026, 12, 24, 18, 0), tz=BERLIN)
    eve = instant("2026-12-24T18:00+01:00")
    assert (when.next_after(0), when.next_after(eve - 1), when.next_after(eve)) == (eve, eve, None)
    assert timetable(at=dt.datetime(2026, 12, 24, 17, 0, tzinfo=dt.UTC), tz=BERLIN) == when
    assert when.text == "at 2026-12-24T17:00:00+00:00"


LINES = ["* * * * *", "*/7 1-5 * * *", "30 2 * * *", "0,30 2 * * MON-FRI", "15 */2 * * *", "0 0 29 2 *", "0 4 L * *"]
ZONES = ["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kolkata"]
INSTANTS = st.integers(instant("2020-01-01T00:00+00:00"), instant("2030-01-01T00:00+00:00"))


@given(st.sampled_from(LINES), st.sampled_from(ZONES), INSTANTS)
def test_instants_grow_and_are_the_same_from_wherever_one_asks(line, zone, begin):
    when = timetable(line, tz=zone)
    first = when.next_after(begin)
    assert first is not None
    second = when.next_after(first)
    assert second is not None
    assert begin < first < second
    assert when.next_after(first - 1) == first
    assert when.next_after((first + second) // 2) == second


@given(st.sampled_from(LINES), st.sampled_from(ZONES), INSTANTS, st.integers(0, 3 * DAY))
def test_the_latest_is_the_last_that_one_finds_by_walking(line, zone, begin, length):
    when, walked, last = timetable(line, tz=zone), begin, None
    for _ in range(200):
        following = when.next_after(walked)
        assert following is not None
        if following > begin + length:
            break
        walked = last = following
    else:
        return  # too many to walk in a test
    assert when.latest(begin, begin + length) == last


@given(st.floats(1, 10_000), INSTANTS, st.integers(0, 30 * DAY))
def test_the_latest_of_an_interval_is_less_than_one_before(every, since, length):
    when = timetable(every=every)
    last = when.latest(since, since + length, since)
    step = round(every * 1_000_000)
    assert last is None or last <= since + length < last + step
    assert (last is None) == (length < step)


def test_a_year_of_minutes_is_not_walked_through():
    began = time.perf_counter()
    until = instant("2026-01-01T00:00+00:00")
    assert timetable("* * * * *").latest(0, until) == until
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "line", ["", "* * * *", "* * * * * *", "60 * * * *", "0 0 * * MOON", "0 0 31 2 *", "5" * 5000, 3, "0 0 * * 1L/2"]
)
def test_a_line_that_cannot_come_is_refused(line):
    with pytest.raises(BadDeclaration, match="cron line"):
        timetable(line)


@pytest.mark.parametrize("every", [0, 0.5, -1, float("nan"), float("inf"), True, "60"])
def test_an_interval_that_cannot_be_is_refused(every):
    with pytest.raises(BadDeclaration, match="number of seconds"):
        timetable(every=every)


@pytest.mark.parametrize("given", [{}, {"every": 3, "at": dt.datetime.now(dt.UTC)}, {"cron": "* * * * *", "every": 3}])
def test_one_of_the_three_is_given(given):
    with pytest.raises(BadDeclaration, match="one of three"):
        timetable(**given)


@pytest.mark.parametrize("zone", ["Europe/Berlino", "", "../../etc/passwd", "/etc/localtime", None, "Europe"])
def test_a_zone_that_nobody_knows_is_refused(zone):
    with pytest.raises(BadDeclaration, match="no time zone"):
        timetable("0 3 * * *", tz=zone)


def test_what_is_no_instant_is_refused():
    with pytest.raises(BadDeclaration, match="no datetime"):
        timetable(at="2026-12-24")  # type: ignore[arg-type]
    with pytest.raises(BadDeclaration, match="before 1970"):
        timetable(at=dt.datetime(1960, 1, 1, tzinfo=dt.UTC))


def test_without_cronsim_a_cron_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(Refused, match="need cronsim") as refused:
        timetable("0 3 * * *")
    assert refused.value.code == "missing_extra"
    assert "bema[schedules]" in refused.value.fix
    assert timetable(every=60).next_after(0) == 60_000_000, "an interval needs nothing"


def test_an_instant_is_shown_to_the_second():
    assert iso(1_700_000_000_999_999) == "2023-11-14T22:13:20+00:00"

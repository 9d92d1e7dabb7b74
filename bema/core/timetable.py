"""Timetable: when something is due, as data: a cron line in a time zone, an interval, or one instant.

Laws: pure; an instant follows from the timetable alone, so every process that asks finds the same ones. Instants are
microseconds UTC, and grow strictly: two that fall together, as in the hour that a change of clocks leaves out, are one.
Cron lines are read as Debian's cron reads them, its rules for a change of clocks among them (by cronsim).
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from bema.core.errors import BadDeclaration, Refused
from bema.core.extras import install_line
from bema.core.naming import shown

if TYPE_CHECKING:
    from cronsim import CronSim

_SECOND: Final = 1_000_000
_FIELDS: Final = 5
_LONGEST: Final = 200
_LEAST: Final = 1.0  # seconds: what comes more often is a loop, and no schedule
_MOST: Final = 10 * 366 * 86_400.0

Missed = Literal["once", "skip"]


class Timetable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of `cron`, `every` and `at` is given. It is made and checked by `timetable`; a stored one is only read."""

    cron: str = ""
    every: float = 0.0  # seconds, counted from the instant `since` that its owner keeps
    at: int = 0
    tz: str = "UTC"  # of the cron line

    def next_after(self, instant: int, since: int = 0) -> int | None:
        """The first instant after this one; None where there is none. `Refused` (missing_extra) for a cron line without cronsim."""
        if self.cron:
            return next(self._matches(instant), None)
        if self.every:
            step = round(self.every * _SECOND)
            return since + (max(instant - since, 0) // step + 1) * step
        return self.at if self.at > instant else None

    def latest(self, after: int, until: int, since: int = 0) -> int | None:
        """The last instant that comes after `after` and not after `until`; None where there is none."""
        found = self.next_after(after, since)
        if found is None or found > until:
            return None
        # by halves: a line that was due every minute for a year is not to be walked through
        low, high = found, until
        while (following := self.next_after(low, since)) is not None and following <= until:
            middle = low + (high - low) // 2
            later = self.next_after(middle, since)
            if later is not None and later <= until:
                low = later
            else:
                low, high = following, middle
        return low

    @property
    def text(self) -> str:
        """For people: `0 3 * * * Europe/Berlin`, `every 60 s`, `at 2026-12-24T18:00:00+00:00`."""
        if self.cron:
            return f"{self.cron} {self.tz}"
        return f"every {self.every:g} s" if self.every else f"at {iso(self.at)}"

    def _matches(self, instant: int) -> Iterator[int]:
        last = instant
        try:
            for match in _cronsim(self.cron, dt.datetime.fromtimestamp(instant // _SECOND, _zone(self.tz))):
                # a line in the hour that comes twice matches its first pass, also when it is asked in its second
                if (found := round(match.timestamp()) * _SECOND) > last:
                    last = found
                    yield found
        except (OverflowError, ValueError):  # beyond the last year that a date can have
            return


class DeclaredSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """What `@schedule` says of an endpoint. An empty name stands for the endpoint's."""

    timetable: Timetable
    name: str = ""
    missed: Missed = "once"
    arguments: Mapping[str, Any] = {}


def timetable(
    cron: str | None = None, *, every: float | None = None, at: dt.datetime | None = None, tz: str = "UTC"
) -> Timetable:
    """Make a timetable of exactly one of the three; `tz` reads the cron line, or an `at` without a zone of its own.

    Raises:
        BadDeclaration: none or several are given, or one is nothing that can come.
        Refused: a cron line needs cronsim (code `missing_extra`).
    """
    if sum(given is not None for given in (cron, every, at)) != 1:
        raise BadDeclaration(
            "a schedule has one of three: a cron line, every=SECONDS or at=INSTANT",
            fix='Write @schedule("0 3 * * *", tz="Europe/Berlin"), @schedule(every=60) or @schedule(at=datetime(...)).',
        )
    zone = _checked_zone(tz)
    if every is not None:
        number = isinstance(every, int | float) and not isinstance(every, bool)
        if not number or not _LEAST <= every <= _MOST:
            raise BadDeclaration(f"every={shown(every)} is no number of seconds between {_LEAST:g} and {_MOST:.0f}")
        return Timetable(every=float(every))
    if at is not None:
        if not isinstance(at, dt.datetime):
            raise BadDeclaration(f"at={shown(at)} is no datetime")
        instant = round((at if at.tzinfo is not None else at.replace(tzinfo=zone)).timestamp() * _SECOND)
        if instant <= 0:
            raise BadDeclaration(f"at={at.isoformat()} lies before 1970")
        return Timetable(at=instant)
    return _cron(cron, tz)


def _cron(line: Any, tz: str) -> Timetable:
    if not isinstance(line, str) or len(line) > _LONGEST or len(line.split()) != _FIELDS:
        raise BadDeclaration(f"{shown(line)} is no cron line of five fields: minute, hour, day, month, day of the week")
    made = Timetable(cron=" ".join(line.split()), tz=tz)
    _cronsim(made.cron, dt.datetime.fromtimestamp(0, dt.UTC))  # which refuses what cannot be read
    if made.next_after(0) is None:
        raise BadDeclaration(f"the cron line {made.cron!r} never comes: no day fits it")
    return made


def _cronsim(line: str, begin: dt.datetime) -> CronSim:
    try:
        import cronsim  # noqa: PLC0415 - third party of the extra
    except ModuleNotFoundError as error:
        raise Refused(
            "schedules by a cron line need cronsim",
            code="missing_extra",
            fix=f"Install it: {install_line('schedules')}",
        ) from error
    try:
        return cronsim.CronSim(line, begin)
    except (cronsim.CronSimError, ValueError, AssertionError) as error:
        raise BadDeclaration(f"the cron line {line!r} cannot be read: {error}") from error


def _checked_zone(name: Any) -> dt.tzinfo:
    try:
        return _zone(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise BadDeclaration(
            f"tz={shown(name)} is no time zone that is known here",
            fix=f"Name it as Europe/Berlin; where the machine has no such data: {install_line('schedules')}",
        ) from error


def _zone(name: str) -> dt.tzinfo:
    # not by zoneinfo: it is there without any data, and cronsim asks for this very object
    return dt.UTC if name == "UTC" else zoneinfo.ZoneInfo(name)


def iso(instant: int) -> str:
    """An instant for people and programs, to the second."""
    return dt.datetime.fromtimestamp(instant // _SECOND, dt.UTC).isoformat()

"""Schedule: one schedule as it is kept, and what a look at the clock makes of it. Pure.

Laws: `passed` only grows, and no instant up to it fires any more: so nothing fires twice, whoever owns the calls and whatever
the clock does. One look fires one instant at most, the last that is due; those before it are missed for good, so nothing
floods. What lay before a schedule was declared, or while it was paused, is not missed.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bema.core.timetable import Missed, Timetable

GRACE: Final = 60_000_000
"""Microseconds by which a firing may be late and is no missed one: a busy process, a clock that was set by a little."""
WRONG_CLOCK: Final = 2 * 86_400_000_000
"""Microseconds. Who fired longer than this after now had a clock that was wrong, and must not silence a schedule for years."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Instants are microseconds UTC, 0 for none.

    - `arguments`, `group`: of the calls that it makes; the arguments are encoded.
    - `since`: when it was first declared as it is, from which an interval is counted.
    - `passed`: no instant up to this one fires any more. `fired`: the last that did; `call`: the call of it.
    """

    name: str
    route: str
    timetable: Timetable
    missed: Missed = "once"
    arguments: bytes = b""
    group: str = ""
    since: int = 0
    passed: int = 0
    fired: int = 0
    call: str = ""
    paused: bool = False

    @property
    def next(self) -> int | None:
        """The next instant that it looks at, be it past; None where there is none, or while it is paused."""
        return None if self.paused else self.timetable.next_after(self.passed, self.since)

    def due(self, now: int) -> tuple[Schedule, bool]:
        """The schedule after a look at the clock, and whether it fires at its `passed`."""
        last = None if self.paused else self.timetable.latest(self.passed, now, self.since)
        if last is None:
            return self, False
        return msgspec.structs.replace(self, passed=last), self.missed == "once" or now - last <= GRACE

    def key_at(self, instant: int) -> str:
        """What makes a firing the same call, by whomever it is made: an owner that died, another one, or both at once."""
        return f"schedule {self.name} {instant}"

    def rewound(self, now: int) -> Schedule:
        """The same, or as of now where a wrong clock had carried it days ahead. One that is due once is not due again."""
        if self.timetable.at or max(self.passed, self.since) <= now + WRONG_CLOCK:
            return self
        return msgspec.structs.replace(self, passed=now, since=min(self.since, now))

    def resumed(self, now: int, *, missed: bool = False) -> Schedule:
        """No longer paused. What came meanwhile is not missed; with `missed` it is, and the schedule's own rule holds."""
        if not self.paused:
            return self
        passed = self.passed if missed else max(self.passed, now)
        return msgspec.structs.replace(self, paused=False, passed=passed)

    @property
    def outlives_code(self) -> bool:
        """Whether it is kept when the code declares it no more: code that comes back starts nothing that was stopped or done."""
        return self.paused or bool(self.timetable.at and self.fired)


def reconciled(kept: Schedule | None, declared: Schedule, now: int) -> Schedule:
    """What is kept of a schedule that the code declares: its own past, while its timetable is the same, and whether it is paused."""
    if kept is not None and kept.timetable == declared.timetable:
        since, passed = kept.since, kept.passed
    else:
        # an instant is due though it is past: its service may have come up a moment too late
        since, passed = now, 0 if declared.timetable.at else now
    if kept is None:
        return msgspec.structs.replace(declared, since=since, passed=passed)
    return msgspec.structs.replace(
        declared, since=since, passed=passed, fired=kept.fired, call=kept.call, paused=kept.paused
    )

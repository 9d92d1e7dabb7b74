"""The restart history of a deployment, and when it may be started again.

Laws, those of OTP and systemd: an instance that served is started again at once; five starts within ten seconds are a
crash loop; what ended before it ever served is never started hot. Waiting grows by doubling up to five minutes and is
forgotten once an instance has served for a whole window. Pure: no clock is read here.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from bema.core.limits import DEFAULTS, Limits

SECOND = 1_000_000
KEPT = 20
"""Attempts kept of a deployment; failures and trips are counted on, so dropping old ones loses no verdict."""


class RestartPolicy(msgspec.Struct, frozen=True):
    """How patient the supervisor is. Times are in microseconds."""

    starts: int = DEFAULTS.restarts
    window: int = round(DEFAULTS.restart_window * SECOND)
    start_limit: int = round(DEFAULTS.start * SECOND)
    first_wait: int = SECOND
    longest_wait: int = 300 * SECOND

    @classmethod
    def of(cls, limits: Limits) -> RestartPolicy:
        return cls(limits.restarts, round(limits.restart_window * SECOND), round(limits.start * SECOND))


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One start and what became of it. Instants are microseconds UTC, 0 for not yet."""

    instance: int
    at: int
    ready: int = 0
    ended: int = 0
    cause: str = ""  # that of the launcher's `Exited`; "lost" when it went unseen, which is no failure of the script
    code: int | None = None
    signal: int | None = None
    log: tuple[str, ...] = ()
    message: str = ""
    failures: int = 0  # starts in a row, this one included, that never served
    trips: int = 0  # times in a row, this one included, that the start limit was hit


class Verdict(enum.StrEnum):
    START = "start"  # nothing holds a start back
    ASLEEP = "asleep"  # ended as asked; started when somebody asks again
    FAILED = "failed"  # the last start never served
    LOOPING = "looping"  # served and died, again and again


def begun(attempts: tuple[Attempt, ...], instance: int, at: int) -> tuple[Attempt, ...]:
    """History with one more start."""
    before = attempts[-1] if attempts else None
    fresh = Attempt(
        instance=instance, at=at, failures=before.failures if before else 0, trips=before.trips if before else 0
    )
    return (*attempts, fresh)[-KEPT:]


def served(attempts: tuple[Attempt, ...], instance: int, at: int) -> tuple[Attempt, ...]:
    """History in which `instance` announced itself."""
    return tuple(
        msgspec.structs.replace(a, ready=at, failures=0) if a.instance == instance and not a.ready else a
        for a in attempts
    )


def ended(
    attempts: tuple[Attempt, ...], instance: int, at: int, policy: RestartPolicy, **how: Any
) -> tuple[Attempt, ...]:
    """History in which `instance` is gone; `how` are fields of `Attempt`. An end is written once.

    Only the newest end keeps its log lines: history is written anew with each change.
    """
    where = next((n for n, a in enumerate(attempts) if a.instance == instance and not a.ended), None)
    if where is None:
        return attempts
    # twenty attempts of fifty lines each would be written at every start
    before = tuple(msgspec.structs.replace(a, log=()) for a in attempts[:where])
    return (*before, _ended(attempts[: where + 1], at, policy, how), *attempts[where + 1 :])


def _ended(upto: tuple[Attempt, ...], at: int, policy: RestartPolicy, how: dict[str, Any]) -> Attempt:
    last = upto[-1]
    cause = how.get("cause", "exited")
    # the planner's stop at the start limit looks to the launcher like any other
    if cause == "stopped" and not last.ready and at - last.at >= policy.start_limit:
        cause = "start_timeout"
    # a clock that was set back must not give an end before its start
    done = msgspec.structs.replace(last, ended=max(at, last.at), **(how | {"cause": cause}))
    if cause == "stopped":
        return done
    if not done.ready and cause != "lost":
        return msgspec.structs.replace(done, failures=done.failures + 1)
    return msgspec.structs.replace(done, trips=_trips(upto, done, policy))


def _trips(upto: tuple[Attempt, ...], done: Attempt, policy: RestartPolicy) -> int:
    if done.ready and done.ended - done.ready >= policy.window:
        return 0
    if done.trips:
        return done.trips + 1
    first = upto[-policy.starts] if len(upto) >= policy.starts else None
    return int(first is not None and done.ended - first.at <= policy.window)


def verdict(attempts: tuple[Attempt, ...], policy: RestartPolicy) -> tuple[Verdict, int]:
    """What the history says, and the instant from which a start is due.

    Nothing here waits on an instance that runs: its attempt has no end and gives the verdict of the one before it.
    """
    last = next((a for a in reversed(attempts) if a.ended), None)
    if last is None:
        return Verdict.START, 0
    if last.cause == "stopped":
        return Verdict.ASLEEP, 0
    if last.failures:
        return Verdict.FAILED, last.ended + wait_after(policy.first_wait, last.failures, policy.longest_wait)
    if last.trips:
        return Verdict.LOOPING, last.ended + wait_after(policy.window, last.trips, policy.longest_wait)
    return Verdict.START, 0


def due(attempts: tuple[Attempt, ...], policy: RestartPolicy, now: int) -> int:
    """Microseconds until a start is due. An end that lies in the future was written under another clock: start now."""
    _, when = verdict(attempts, policy)
    if attempts and attempts[-1].ended > now:
        return 0
    return max(0, when - now)


def wait_after(first: int, times: int, longest: int) -> int:
    """How long to wait after so many failures in a row: `first`, then twice as long each time."""
    return min(longest, first << min(times - 1, 20))

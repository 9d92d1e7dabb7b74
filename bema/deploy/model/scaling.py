"""Scaling: how many replicas a deployment is to have, from what is asked of it. Pure: no clock is read here.

Laws: who waits for a place is given one at once, within the bounds; what is in flight on average, over a minute or, where that
is twice what there is room for, over seconds, is given room. Fewer there are only after a whole window in which fewer were
enough, and none only after nothing was asked for so long as the deployment says. Times are in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from bema.deploy.model.function import Scale
from bema.deploy.model.restarts import SECOND

STABLE: Final = 60 * SECOND
"""The window over which an average counts, and for which one replica too many is kept."""
PANIC: Final = 6 * SECOND
"""The window in which twice of what there is room for is answered with more at once."""
_FASTER: Final = 10
"""How many times as many there may be from one look to the next; from none, as many as are needed."""


class Load(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a gateway has of a deployment: now, and since it reported last.

    `busy` is the time that requests were in flight, added up: its growth by a second in a second is one request.
    """

    deployment: str
    in_flight: int = 0
    waiting: int = 0
    busy: int = 0
    last_use: int = 0  # the instant at which the last request ended


class Loads(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a gateway reports: the deployments that changed, and every draining instance with nothing of it in flight."""

    gateway: int
    loads: tuple[Load, ...] = ()
    drained: tuple[int, ...] = ()


class Wish(msgspec.Struct, frozen=True):
    """How many replicas there are to be; `asked` where somebody waits for one.

    After `again` fewer may be enough; 0 where that does not come by itself.
    """

    replicas: int = 0
    again: int = 0
    asked: bool = False


class _Told(msgspec.Struct):
    """What one gateway said last, and when."""

    load: Load
    at: int


class Usage:
    """What is asked of one deployment, by all who report on it, from `since` on."""

    def __init__(self, since: int) -> None:
        self.since = since
        self.last_use = since
        self._told: dict[int, _Told] = {}
        self._spent: dict[int, int] = {}  # by second: the time in flight or waiting
        self._needs: dict[int, int] = {}  # by second: the most replicas that were needed
        self._panic = 0  # until when

    @property
    def in_flight(self) -> int:
        return sum(told.load.in_flight for told in self._told.values())

    @property
    def waiting(self) -> int:
        return sum(told.load.waiting for told in self._told.values())

    def told(self, who: int, load: Load, now: int) -> None:
        """Take a report in."""
        before = self._told.get(who)
        if before is not None:
            # what waited did so until now, as far as anybody knows; what was in flight is told exactly
            self._spend(before.at, now, load.busy + before.load.waiting * max(0, now - before.at))
        self._told[who] = _Told(load, now)
        self.last_use = max(self.last_use, min(now, load.last_use))
        if load.in_flight or load.waiting:
            self.last_use = max(self.last_use, now)

    def forget(self, gone: Iterable[int], now: int) -> None:
        """Those who reported are there no more, and so is what they had."""
        for who in gone:
            if (told := self._told.pop(who, None)) is not None and (told.load.in_flight or told.load.waiting):
                self.last_use = max(self.last_use, now)

    def reporters(self) -> frozenset[int]:
        return frozenset(self._told)

    def used(self, now: int) -> None:
        """Somebody asked for it."""
        self.last_use = max(self.last_use, now)

    def average(self, now: int, window: int) -> float:
        """How many were in flight or waiting on average in the window before now."""
        first = (now - window) // SECOND + 1
        spent = sum(time for second, time in self._spent.items() if second >= first)
        for told in self._told.values():
            # what it has is not added up yet
            asked = told.load.in_flight + told.load.waiting
            spent += asked * min(window, max(0, now - told.at))
        return spent / window

    def wish(self, scale: Scale, have: int, started: int, now: int) -> Wish:
        """How many replicas there are to be, where `have` serve or start, the last of them begun at `started`."""
        waiting, in_flight = self.waiting, self.in_flight
        need = self._need(scale, have, waiting, in_flight, now)
        second = now // SECOND
        self._needs = {at: n for at, n in self._needs.items() if second - STABLE // SECOND < at <= second}
        self._needs[second] = max(need, self._needs.get(second, 0))
        kept = max(self._needs.values())
        young = now - self.since < STABLE
        if young:
            # who took over knows nothing of the minute before it
            kept = max(kept, have)
        idle = scale.idle_after - (now - max(self.last_use, started))
        asleep = not (waiting or in_flight) and idle <= 0
        wanted = 0 if asleep else max(kept, 1)
        replicas = min(scale.max, max(scale.min, wanted))
        return Wish(replicas, self._again(need, idle, now) if replicas > scale.min else 0, bool(waiting))

    def _need(self, scale: Scale, have: int, waiting: int, in_flight: int, now: int) -> int:
        per = max(1, scale.concurrency)
        # while nobody waits there is room for all, whatever is in flight
        at_once = -(-(waiting + in_flight) // per) if waiting else min(have, -(-in_flight // per))
        soon, steady = self._replicas(now, PANIC, per), self._replicas(now, STABLE, per)
        if have and soon >= 2 * have:
            self._panic = now + STABLE
        need = max(at_once, steady, soon if now < self._panic else 0)
        return min(need, have * _FASTER) if have else need

    def _replicas(self, now: int, window: int, per: int) -> int:
        # less than a hundredth of a replica is the rounding of a report
        return int(-(-(self.average(now, window) / per - 0.01) // 1))

    def _again(self, need: int, idle: int, now: int) -> int:
        """When the wish may be a lower one, though nobody reports anything."""
        later = [at * SECOND + STABLE - now for at, n in self._needs.items() if n > need]
        if now - self.since < STABLE:
            later.append(self.since + STABLE - now)
        if not (self.waiting or self.in_flight):
            later.append(idle)
            if self._spent or need:
                later.append(SECOND)
        return max(1, min((each for each in later if each > 0), default=0))

    def _spend(self, begin: int, end: int, time: int) -> None:
        """Lay time down evenly over the seconds from `begin` to `end`, as far as a window reaches back."""
        length = max(1, end - begin)
        at = max(begin, end - STABLE)
        while at < end:
            until = min(end, (at // SECOND + 1) * SECOND)
            second = at // SECOND
            self._spent[second] = self._spent.get(second, 0) + time * (until - at) // length
            at = until
        oldest = (end - STABLE) // SECOND
        for second in [each for each in self._spent if each < oldest]:
            del self._spent[second]

"""Admission of durable calls to a run: which of those that are due may begin now, by the queues of their endpoints.

Laws: pure; it is told who begins and who has ended. What is refused is held under the one thing that stands in its way, and
comes back when that gives way: so a call that may not run holds up no other, and none that may run is left behind. Times are
seconds of a monotonic clock: a clock that is set changes no rate.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from bema.core.durable import Queue
from bema.core.spec import EndpointSpec
from bema.jobs.calls import CallRecord
from bema.jobs.journal import digest_of

Entry = tuple[int, int, str]
"""A call as a queue sorts it: the instant at which it is due, minus its priority, its id."""

_ANY: Final = Queue()
_LONGEST: Final = 200
_NEARLY: Final = 1e-9  # a token that was waited for exactly is there, whatever a float makes of it


class Blocker(NamedTuple):
    """What stands in a call's way: the concurrency or the rate of a route, or a group, of which `most` may run."""

    kind: str
    name: str
    most: int = 0


class TokenBucket:
    """`rate` tokens at most; it gets as many within `per` seconds."""

    def __init__(self, rate: int, per: float, now: float) -> None:
        self.rate = rate
        self.per = per
        self._tokens = float(rate)
        self._at = now

    def there(self, now: float) -> int:
        """The whole tokens that are there."""
        self._tokens = min(self.rate, self._tokens + max(0.0, now - self._at) * self.rate / self.per)
        self._at = max(self._at, now)
        return int(self._tokens + _NEARLY)

    def take(self, now: float) -> None:
        self.there(now)
        self._tokens = max(0.0, self._tokens - 1)

    def wait(self, now: float) -> float:
        """Seconds until the next token; 0 where one is there."""
        return 0.0 if self.there(now) else (1 - self._tokens) * self.per / self.rate


class CallAdmission:
    """Ask it for each call that is due, the first in order first; `queue_of` gives the queue of a route, None for none.

    `admit`, then `begun`, then `ended`; or `hold` what was refused, and try again what `released` gives back.
    """

    def __init__(self, queue_of: Callable[[str], Queue | None] = lambda route: None) -> None:
        self._queue_of = queue_of
        self._running: Counter[str] = Counter()  # by route
        self._groups: Counter[str] = Counter()
        self._buckets: dict[str, TokenBucket] = {}
        self._held: dict[Blocker, list[Entry]] = {}
        self._open: set[Blocker] = set()  # which may have given way
        self._bounds: set[int] = set()  # of the groups that ever held a call: a handful

    def admit(self, record: CallRecord, now: float) -> float:
        """0 where the call may run now, else the seconds until it may; infinite where another call has to end first."""
        blocker = self._blocker(record, now)
        if blocker is None:
            return 0.0
        return self._buckets[record.route].wait(now) if blocker.kind == "rate" else math.inf

    def begun(self, record: CallRecord, now: float) -> None:
        """The call runs: an admitted one, in the same turn."""
        self._running[record.route] += 1
        if record.group:
            self._groups[record.group] += 1
        if not record.attempts and (bucket := self._bucket(record.route, now)) is not None:
            bucket.take(now)

    def ended(self, record: CallRecord) -> None:
        """The call runs no more: it has ended, waits, or is paused. The record is as it was given to `begun`."""
        _less(self._running, record.route)
        if record.group:
            _less(self._groups, record.group)
        gives_way = {self._concurrency(record), *(Blocker("group", record.group, most) for most in self._bounds)}
        self._open |= gives_way & self._held.keys()

    def hold(self, entry: Entry, record: CallRecord, now: float) -> None:
        """Keep a refused call until what stands in its way gives way."""
        blocker = self._blocker(record, now)
        if blocker is None:  # it gave way since it was asked: the next look gives it back
            blocker = self._concurrency(record)
            self._open.add(blocker)
        if blocker.kind == "group":
            self._bounds.add(blocker.most)
        heapq.heappush(self._held.setdefault(blocker, []), entry)

    def released(self, now: float) -> list[Entry]:
        """Held calls for which there is room now, no more than there is; to be tried again, in order with all others."""
        found: list[Entry] = []
        for blocker in [*self._open, *(held for held in self._held if held.kind == "rate")]:
            entries, room = self._held.get(blocker, []), self._room(blocker, now)
            while entries and room > 0:
                found.append(heapq.heappop(entries))
                room -= 1
            if not entries:
                self._held.pop(blocker, None)
            # with room left to give, it stays open: what came back may be refused for another reason, or be gone
            if not entries or self._room(blocker, now) <= 0:
                self._open.discard(blocker)
        return found

    def reconsider(self) -> None:
        """The queues may say something else now: all that is held is looked at again."""
        self._open |= self._held.keys()

    def wait(self, now: float) -> float | None:
        """Seconds until a rate lets the next held call run; None where none waits for a rate."""
        buckets = [self._bucket(held.name, now) for held in self._held if held.kind == "rate"]
        return min((0.0 if bucket is None else bucket.wait(now) for bucket in buckets), default=None)

    # what stands in a call's way, the first of: the concurrency of its route, its group, its rate

    def _blocker(self, record: CallRecord, now: float) -> Blocker | None:
        queue = self._queue(record.route)
        if queue.concurrency is not None and self._running[record.route] >= queue.concurrency:
            return self._concurrency(record)
        if record.group and self._groups[record.group] >= queue.per_group:
            return Blocker("group", record.group, queue.per_group)
        # who has begun before goes on: its wait or its death is not to cost it a second turn
        if not record.attempts and (bucket := self._bucket(record.route, now)) is not None and not bucket.there(now):
            return Blocker("rate", record.route)
        return None

    def _room(self, blocker: Blocker, now: float) -> float:
        if blocker.kind == "rate":
            bucket = self._bucket(blocker.name, now)
            return math.inf if bucket is None else bucket.there(now)
        if blocker.kind == "group":
            return blocker.most - self._groups[blocker.name]
        most = self._queue(blocker.name).concurrency
        return math.inf if most is None else most - self._running[blocker.name]

    def _concurrency(self, record: CallRecord) -> Blocker:
        return Blocker("concurrency", record.route)

    def _queue(self, route: str) -> Queue:
        return self._queue_of(route) or _ANY

    def _bucket(self, route: str, now: float) -> TokenBucket | None:
        queue = self._queue(route)
        if queue.rate is None:
            return None
        bucket = self._buckets.get(route)
        if bucket is None or (bucket.rate, bucket.per) != (queue.rate, queue.per):
            bucket = self._buckets[route] = TokenBucket(queue.rate, queue.per, now)
        return bucket


def queue_of(spec: EndpointSpec) -> Queue | None:
    """The queue that an endpoint declares; None where it declares none."""
    said = spec.facts.get("jobs")
    found = said.get("queue") if isinstance(said, Mapping) else None
    return found if isinstance(found, Queue) else None


def group_of(spec: EndpointSpec, arguments: Mapping[str, Any]) -> str:
    """The group that the arguments of a call put it in, by the parameter that its endpoint's queue names; empty for none."""
    queue = queue_of(spec)
    if queue is None or not queue.group:
        return ""
    default = next((each.default for each in spec.parameters if each.name == queue.group), None)
    value = arguments.get(queue.group, default)
    # a short text is its own name; anything else by its digest, so that equal values are one group
    plain = isinstance(value, str | int) and len(str(value)) <= _LONGEST - len(queue.group)
    return f"{queue.group}={value if plain else digest_of((value,), {})}"


def _less(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if counter[name] <= 0:  # groups come and go: none is to be remembered for ever
        del counter[name]

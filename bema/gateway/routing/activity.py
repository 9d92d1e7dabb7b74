"""Activity: the counters of each deployment: requests in flight, last access, answers by class, time to the answer's head.

Law: counting costs a few integer additions on the warm path, and neither waits nor allocates per request.
"""

from __future__ import annotations

from bema.core.clock import Clock, SystemClock

__all__ = ["BUCKETS", "Activities", "Activity"]

BUCKETS = 28  # bucket k holds durations below 2**k microseconds: up to two minutes


class Activity:
    """The counters of one deployment."""

    __slots__ = (
        "answers",
        "clock",
        "deployment",
        "histogram",
        "in_flight",
        "last_access",
        "microseconds",
        "upstream_failures",
    )

    def __init__(self, deployment: str, clock: Clock) -> None:
        self.deployment = deployment
        self.clock = clock
        self.in_flight = 0
        self.last_access = 0
        self.answers = [0] * 6  # by the first digit of the status, where it is one of the five classes
        self.upstream_failures = 0
        self.histogram = [0] * (BUCKETS + 1)
        self.microseconds = 0

    def begin(self) -> None:
        self.in_flight += 1

    def answered(self, status: int, seconds: float) -> None:
        # the bucket is the number of binary digits, so there is no search
        took = int(seconds * 1e6)
        # RFC 9110 15: a status above 599 is taken for a 5xx
        self.answers[min(status // 100, 5)] += 1
        self.histogram[min(BUCKETS, took.bit_length())] += 1
        self.microseconds += took

    def end(self) -> None:
        self.in_flight -= 1
        # At the end and not the beginning: a stream of an hour is use until it ends.
        self.last_access = self.clock.now()


class Activities:
    """The activities of all deployments that were reached since the gateway started."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._by_deployment: dict[str, Activity] = {}
        self.refused = 0
        self.connections = 0

    def of(self, deployment: str) -> Activity:
        found = self._by_deployment.get(deployment)
        if found is None:
            found = self._by_deployment[deployment] = Activity(deployment, self._clock)
        return found

    def all(self) -> list[Activity]:
        return list(self._by_deployment.values())

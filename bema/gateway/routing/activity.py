"""Activity: the counters of each deployment: requests in flight, last access, answers by class, time to the answer's head.

Law: counting costs a few integer additions on the warm path, and neither waits nor allocates per request.
"""

from __future__ import annotations

from collections.abc import Callable

from bema.core.clock import Clock, SystemClock

__all__ = ["BUCKETS", "Activities", "Activity"]

BUCKETS = 28  # bucket k holds durations below 2**k microseconds: up to two minutes


class Activity:
    """The counters of one deployment."""

    __slots__ = (
        "answers",
        "changed",
        "clock",
        "deployment",
        "histogram",
        "in_flight",
        "last_access",
        "microseconds",
        "news",
        "spent",
        "upstream_failures",
    )

    def __init__(self, deployment: str, clock: Clock, news: Callable[[Activity], None] = lambda activity: None) -> None:
        self.deployment = deployment
        self.clock = clock
        self.news = news
        self.changed = False  # since it was last reported
        self.spent = 0  # microseconds in flight of all requests together, less the instants at which those of now began
        self.in_flight = 0
        self.last_access = 0
        self.answers = [0] * 6  # by the first digit of the status, where it is one of the five classes
        self.upstream_failures = 0
        self.histogram = [0] * (BUCKETS + 1)
        self.microseconds = 0

    def begin(self) -> None:
        self.in_flight += 1
        self.spent -= self.clock.now()
        if not self.changed:
            self.changed = True
            self.news(self)

    def busy(self, now: int) -> int:
        """Microseconds in flight of all requests together until now; its growth over a time is how many there were."""
        return self.spent + self.in_flight * now

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
        self.last_access = now = self.clock.now()
        self.spent += now
        if not self.changed:
            self.changed = True
            self.news(self)


class Activities:
    """The activities of all deployments that were reached since the gateway started."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._by_deployment: dict[str, Activity] = {}
        self.changed: list[Activity] = []
        self.news: Callable[[], None] = lambda: None  # told when the first has changed
        self.refused = 0
        self.connections = 0

    def of(self, deployment: str) -> Activity:
        found = self._by_deployment.get(deployment)
        if found is None:
            found = self._by_deployment[deployment] = Activity(deployment, self._clock, self._heard)
        return found

    def known(self, deployment: str) -> Activity | None:
        """The activity of a deployment that was reached; None of another."""
        return self._by_deployment.get(deployment)

    def take_changed(self) -> list[Activity]:
        """Those that changed since they were last taken."""
        taken, self.changed = self.changed, []
        for activity in taken:
            activity.changed = False
        return taken

    def tell_again(self) -> None:
        """All that are used have changed for who knows none of them."""
        for activity in self._by_deployment.values():
            if not activity.changed:
                activity.changed = True
                self._heard(activity)

    def _heard(self, activity: Activity) -> None:
        self.changed.append(activity)
        self.news()

    def all(self) -> list[Activity]:
        return list(self._by_deployment.values())

"""Starts: the counters of the starts that this gateway saw, and of the requests that waited for one.

Law: what a client makes up, such as the id of no deployment, makes no counter.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections import Counter

from bema.core.errors import BemaError, NotFound
from bema.core.instance import Instance
from bema.core.problems import PROBLEMS
from bema.core.start_report import KINDS, StartReport
from bema.gateway.routing.activity import BUCKETS

__all__ = ["StartWaits", "Starts"]


class StartWaits:
    """How long requests waited: bucket k of `histogram` counts the waits below 2**k microseconds, the last all that are longer."""

    __slots__ = ("histogram", "microseconds")

    def __init__(self) -> None:
        self.histogram = [0] * (BUCKETS + 1)
        self.microseconds = 0

    def add(self, seconds: float) -> None:
        took = int(seconds * 1e6)
        self.histogram[min(BUCKETS, took.bit_length())] += 1
        self.microseconds += took


class Starts:
    """`begun` counts by (deployment, kind), `failed` by the code of the answer; `waits` has every kind."""

    def __init__(self) -> None:
        self.begun: Counter[tuple[str, str]] = Counter()
        self.failed: Counter[str] = Counter()
        self.waits = {kind: StartWaits() for kind in KINDS}

    def shown(self, instance: Instance) -> None:
        """Count an instance that was not there before."""
        self.begun[instance.deployment, StartReport.of(instance).kind] += 1

    def waited(self, instance: Instance, seconds: float) -> None:
        """Count a request that waited so long, and was given this instance."""
        self.waits[StartReport.of(instance).kind].add(seconds)

    def refused(self, error: BemaError | CancelledError) -> None:
        """Count a request that waited and was given none; its client went away where the wait was cancelled."""
        if isinstance(error, NotFound):
            return  # there is nothing that could start
        code = error.code if isinstance(error, BemaError) else "cancelled"
        self.failed[code if code in PROBLEMS else "internal"] += 1

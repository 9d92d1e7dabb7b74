"""How many replicas an availability takes. Pure arithmetic; the numbers are those of the reference planner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# The bounds, the default and the slow mark are the reference planner's own, so that its table comes out the same.
MOST = 50
MOST_FOR_THROUGHPUT = 20
DEFAULT_AVAILABILITY = 0.99
_MILLICORES = 500.0  # what one replica is meant to use
_SLOW_MS = 250.0
_ROUNDING = 1e-12  # a sum of products misses 0.99 by a few units in the last place


class ReplicaCount(NamedTuple):
    replicas: int
    reached: float  # the availability of a quorum of them
    enough: bool


class Measure(NamedTuple):
    """What one replica was seen to do."""

    rps: float
    millicores: float = _MILLICORES
    p99_ms: float = 0.0


def quorum_availability(availabilities: Sequence[float]) -> float:
    """The chance that more than half of them are up."""
    up = [1.0]  # chance of exactly k being up
    for p in availabilities:
        up = [(up[k] * (1 - p) if k < len(up) else 0.0) + (up[k - 1] * p if k else 0.0) for k in range(len(up) + 1)]
    return min(math.fsum(up[len(availabilities) // 2 + 1 :]), 1.0)


def for_availability(target: float, availabilities: Sequence[float]) -> ReplicaCount:
    """Environments are added worst first until a quorum reaches the target; where it never does, all of them."""
    worst_first = sorted(availabilities)[:MOST]
    reached = 0.0
    for n in range(1, len(worst_first) + 1):
        reached = quorum_availability(worst_first[:n])
        if reached >= target - _ROUNDING:
            return ReplicaCount(n, reached, True)
    return ReplicaCount(len(worst_first), reached, False)


def for_strong(replicas: int) -> int:
    """A linearizable copy set tolerates at least one failure: three replicas or more, an odd number's worth."""
    quorum = replicas // 2 + 1
    return min(max(replicas, 2 * max(quorum - 1, 1) + 1), MOST)


def for_throughput(target: float, measured: Measure) -> int:
    """Enough replicas for a rate, given what one was seen to do; one more where it was slow."""
    wanted = max(math.ceil(target / measured.rps * measured.millicores / _MILLICORES), 1)
    return min(wanted + (measured.p99_ms > _SLOW_MS), MOST_FOR_THROUGHPUT)

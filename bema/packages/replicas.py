"""Replica counts: how many replicas an availability, a throughput or the author's bounds require.

Law: the numbers are those of the reference planner, and the author's bounds are never overwritten. Pure arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from bema.packages.opackage import FunctionDeploymentSpec, ProvisionConfig

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
    """The measured rate of one replica in requests per second, its CPU in millicores, its 99th percentile in ms."""

    rps: float
    millicores: float = _MILLICORES
    p99_ms: float = 0.0


def quorum_availability(availabilities: Sequence[float]) -> float:
    """The probability that more than half of the environments are up at once."""
    # dynamic programming over the environments: `up[k]` after each is the chance that exactly k of those so far are up
    up = [1.0]  # chance of exactly k being up
    for p in availabilities:
        up = [(up[k] * (1 - p) if k < len(up) else 0.0) + (up[k - 1] * p if k else 0.0) for k in range(len(up) + 1)]
    # rounding may carry the sum beyond 1
    return min(math.fsum(up[len(availabilities) // 2 + 1 :]), 1.0)


def for_availability(target: float, availabilities: Sequence[float]) -> ReplicaCount:
    """How many environments a quorum needs to reach the target; all of them where it never does."""
    # worst first: the count then suffices whichever environments are chosen
    worst_first = sorted(availabilities)[:MOST]
    reached = 0.0
    for n in range(1, len(worst_first) + 1):
        reached = quorum_availability(worst_first[:n])
        if reached >= target - _ROUNDING:
            return ReplicaCount(n, reached, True)
    return ReplicaCount(len(worst_first), reached, False)


def for_strong(replicas: int) -> int:
    """The replicas of a linearizable copy set, at least three, so that it tolerates a failure."""
    quorum = replicas // 2 + 1
    return min(max(replicas, 2 * max(quorum - 1, 1) + 1), MOST)


def for_throughput(target: float, measured: Measure) -> int:
    """The replicas for a rate in requests per second, given a measured one; one more where that was slow."""
    wanted = max(math.ceil(target / measured.rps * measured.millicores / _MILLICORES), 1)
    return min(wanted + (measured.p99_ms > _SLOW_MS), MOST_FOR_THROUGHPUT)


# one function's share of a plan: its image, and bounds that are the author's where the author gave any


class _Wishes(Protocol):
    @property
    def images(self) -> Mapping[str, str]: ...
    @property
    def measured(self) -> Mapping[str, Measure]: ...


class Demand(NamedTuple):
    """The requirements of a deployment for each of its functions."""

    deployment: str
    replicas: int
    rps: int | None
    wishes: _Wishes


def scaled(
    spec: FunctionDeploymentSpec, demand: Demand, notes: list[str], conflicts: list[str]
) -> FunctionDeploymentSpec:
    """The spec of a function with image and bounds filled in; `notes` and `conflicts` get what is to be said of it."""
    config = replace(spec.provision_config) if spec.provision_config else None
    key = spec.function_key
    image = demand.wishes.images.get(key)
    if image is not None:
        # without need_http2 the image would be that of a function which the platform cannot call
        config = config or ProvisionConfig(need_http2=True)
        config.container_image = image
    spec = replace(spec, provision_config=config)
    if config is None:
        notes.append(f"{demand.deployment}: function {key} has no provision_config: nothing to scale")
        return spec
    wanted = max(demand.replicas, _for_rate(spec, demand, notes, conflicts), 1)
    if config.max_scale is not None and config.max_scale < wanted:
        conflicts.append(
            f"{demand.deployment}: function {key} needs {wanted} replicas but max_scale is {config.max_scale}. Raise"
            " max_scale, or require less."
        )
    # the reference planner writes max(1, replicas) over min_scale, so that nobody can ask for scale to zero
    if config.min_scale is None:
        config.min_scale = wanted if config.max_scale is None else min(wanted, config.max_scale)
    elif config.min_scale < wanted:
        notes.append(f"{demand.deployment}: function {key} keeps min_scale {config.min_scale}, below {wanted} replicas")
    return spec


def _for_rate(spec: FunctionDeploymentSpec, demand: Demand, notes: list[str], conflicts: list[str]) -> int:
    """Replicas for the required rate: the function's own requirement, else the deployment's."""
    own = spec.qos_requirement.throughput if spec.qos_requirement else 0
    rps = own or demand.rps
    key = spec.function_key
    if not rps:
        return 0
    measured = demand.wishes.measured.get(key)
    if measured is None:
        notes.append(f"{demand.deployment}: {rps} rps of {key} cannot be sized: say what one replica does (--measured)")
        return 0
    wanted = for_throughput(rps, measured)
    if wanted * measured.rps < rps and wanted >= MOST_FOR_THROUGHPUT:
        conflicts.append(
            f"{demand.deployment}: function {key} needs {rps} rps; {wanted} replicas, the most, do"
            f" {wanted * measured.rps:g}. Make it faster, or require less."
        )
    return wanted

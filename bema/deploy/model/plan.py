"""plan(desired, actual, now) -> actions: what would make instances equal deployments.

Laws: pure; level-triggered, so the same picture gives the same actions and a lost event costs nothing; a deployment has at
most one instance, and none is started while one of it runs, is being started or is ending.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from bema.core.instance import State
from bema.deploy.model.deployment import Rollout
from bema.deploy.model.restarts import RestartPolicy, Verdict, due, verdict


class ActualReplica(msgspec.Struct, frozen=True):
    """One instance that exists, or is being started (NEW)."""

    instance: int
    deployment: str
    version: str
    state: State
    since: int


class StartBuild(msgspec.Struct, frozen=True):
    deployment: str


class StartReplica(msgspec.Struct, frozen=True):
    deployment: str


class StopReplica(msgspec.Struct, frozen=True):
    instance: int
    reason: str


class Lost(msgspec.Struct, frozen=True):
    """The history says an instance runs, and none does: its end was not seen."""

    deployment: str
    instance: int


class Forget(msgspec.Struct, frozen=True):
    """A deployment that is gone has no instance any more: close what was kept for it."""

    deployment: str


class Wait(msgspec.Struct, frozen=True):
    """Nothing to do now; look again after so many microseconds."""

    deployment: str
    after: int


Action = StartBuild | StartReplica | StopReplica | Lost | Forget | Wait


def plan(
    desired: Iterable[Rollout],
    actual: Iterable[ActualReplica],
    now: int,
    policy: RestartPolicy = RestartPolicy(),  # noqa: B008 - frozen
    *,
    woken: frozenset[str] = frozenset(),
    leaving: frozenset[str] = frozenset(),
) -> list[Action]:
    """The actions due at `now`. `woken` are those somebody asks for; `leaving` are deleted and not yet forgotten."""
    running: dict[str, list[ActualReplica]] = {}
    for instance in actual:
        running.setdefault(instance.deployment, []).append(instance)
    wanted = {rollout.id: rollout for rollout in desired}
    actions: list[Action] = []
    for rollout in wanted.values():
        actions += _one(rollout, running.get(rollout.id, ()), now, policy, rollout.id in woken)
    actions += _others(wanted, running, leaving)
    return actions


def _one(
    rollout: Rollout, instances: Iterable[ActualReplica], now: int, policy: RestartPolicy, woken: bool
) -> list[Action]:
    if instances:
        return _keep_one(rollout, sorted(instances, key=lambda i: (i.since, i.instance)), now, policy)
    if rollout.status.build.state == "pending":
        return [StartBuild(rollout.id)]
    if rollout.status.build.state == "failed":
        # the network may have been away: what failed is tried again, but only for somebody and not too often
        return [StartBuild(rollout.id)] if woken and now >= rollout.status.build.again else []
    if rollout.status.attempts and not rollout.status.attempts[-1].ended:
        return [Lost(rollout.id, rollout.status.attempts[-1].instance)]
    said, _ = verdict(rollout.status.attempts, policy)
    if said is Verdict.ASLEEP and not woken:
        return []
    wait = due(rollout.status.attempts, policy, now)
    return [Wait(rollout.id, wait)] if wait else [StartReplica(rollout.id)]


def _keep_one(rollout: Rollout, instances: list[ActualReplica], now: int, policy: RestartPolicy) -> list[Action]:
    """Keep the oldest of the current version; a newer one beside it is a double and is stopped."""
    current = [i for i in instances if i.version == rollout.version.label]
    keep = next((i for i in current if i.state is State.SERVING), current[0] if current else None)
    actions: list[Action] = [StopReplica(i.instance, "replaced") for i in instances if i is not keep and _stoppable(i)]
    if keep is not None and keep.state in (State.NEW, State.STARTING):
        left = keep.since + policy.start_limit - now
        if left > 0:
            actions.append(Wait(rollout.id, left))
        # a NEW one waits for its launcher, whose answer, good or bad, comes by itself
        elif keep.state is State.STARTING:
            actions.append(StopReplica(keep.instance, "start_timeout"))
    return actions


def _others(
    wanted: Mapping[str, Rollout], running: Mapping[str, list[ActualReplica]], leaving: frozenset[str]
) -> list[Action]:
    actions: list[Action] = []
    for id, instances in running.items():
        if id not in wanted:
            actions += [StopReplica(i.instance, "deleted") for i in instances if _stoppable(i)]
    return actions + [Forget(id) for id in sorted(leaving) if id not in wanted and not running.get(id)]


def _stoppable(instance: ActualReplica) -> bool:
    # NEW cannot be taken back, it is stopped once it is there; DRAINING is being stopped
    return instance.state in (State.STARTING, State.SERVING)

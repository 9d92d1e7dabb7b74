"""plan(desired, actual, now) -> actions: what would make instances equal deployments.

Laws: pure; level-triggered, so the same picture gives the same actions and a lost event costs nothing; how many replicas
there are is decided here and nowhere else, per version within its bounds; what is being started or is ending counts, so
nothing is started twice; no start while a build is pending, or while a replica of a version that is not wanted is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from bema.core.instance import State
from bema.deploy.model.deployment import Rollout, Version
from bema.deploy.model.function import Scale
from bema.deploy.model.replica import Replica
from bema.deploy.model.restarts import RestartPolicy, Verdict, due, verdict


class Load(msgspec.Struct, frozen=True):
    """What is asked of a deployment. `since` is the instant from which it was no more than this."""

    in_flight: int = 0
    waiting: int = 0
    since: int = 0


class StartBuild(msgspec.Struct, frozen=True):
    deployment: str
    version: str


class StartReplica(msgspec.Struct, frozen=True):
    deployment: str
    version: str


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

_RANK = {State.SERVING: 0, State.DRAINING: 2}  # which replicas are kept first
_IDLE = Load()


def plan(
    desired: Iterable[Rollout],
    actual: Iterable[Replica],
    now: int,
    policy: RestartPolicy = RestartPolicy(),  # noqa: B008 - frozen
    *,
    woken: frozenset[str] = frozenset(),
    leaving: frozenset[str] = frozenset(),
    scales: Mapping[str, Scale] | None = None,
    loads: Mapping[str, Load] | None = None,
    unfinished: Mapping[str, frozenset[str]] | None = None,
) -> list[Action]:
    """The actions due at `now`. `woken` are those somebody asks for; `leaving` are deleted and not yet forgotten.

    `scales` and `loads` are by deployment; where there is none, the deployment's own scale holds and nothing is asked.
    `unfinished` are the labels of versions, by deployment, whose durable calls wait for a replica of theirs.
    """
    running: dict[str, list[Replica]] = {}
    for replica in actual:
        running.setdefault(replica.deployment, []).append(replica)
    wanted = {rollout.id: rollout for rollout in desired}
    actions: list[Action] = []
    for id, rollout in wanted.items():
        actions += _Deployment(
            rollout,
            running.get(id, []),
            (scales or {}).get(id, rollout.deployment.scale),
            (loads or {}).get(id, _IDLE),
            asked=id in woken,
            unfinished=(unfinished or {}).get(id, frozenset()),
            now=now,
            policy=policy,
        ).actions()
    for id, replicas in running.items():
        if id not in wanted:
            actions += [StopReplica(each.instance, "deleted") for each in replicas if _stoppable(each)]
    return actions + [Forget(id) for id in sorted(leaving) if id not in wanted and not running.get(id)]


class _Deployment:
    """One deployment, looked at once."""

    def __init__(
        self,
        rollout: Rollout,
        replicas: Sequence[Replica],
        scale: Scale,
        load: Load,
        *,
        asked: bool,
        unfinished: frozenset[str],
        now: int,
        policy: RestartPolicy,
    ) -> None:
        self.rollout = rollout
        self.deployment = rollout.deployment
        self.replicas = replicas
        self.scale = scale
        self.load = load
        self.asked = asked or load.waiting > 0
        self.unfinished = unfinished
        self.now = now
        self.policy = policy

    def actions(self) -> list[Action]:
        versions = self._wanted()
        labels = {version.label for version in versions}
        others = [each for each in self.replicas if each.version not in labels]
        # first: two versions share one listener and one HOME
        actions: list[Action] = [StopReplica(each.instance, "replaced") for each in others if _stoppable(each)]
        for version in versions:
            actions += self._version(version, [r for r in self.replicas if r.version == version.label], bool(others))
        return actions

    def _wanted(self) -> list[Version]:
        """The versions that are to run: the newest, and older ones on which calls began that are to go on."""
        newest = self.deployment.version
        return [v for v in self.deployment.versions if v is newest or v.label in self.unfinished]

    def _version(self, version: Version, replicas: list[Replica], hindered: bool) -> list[Action]:
        wish = self._wish(version)
        kept = self._kept(replicas, wish)
        reason = "replaced" if len(replicas) > self.scale.max else "idle"
        surplus = [r for r in replicas if r not in kept and _stoppable(r)]
        actions: list[Action] = [StopReplica(r.instance, reason) for r in surplus]
        for replica in kept:
            actions += self._patience(replica)
        # one that is ending, or is told to now, does no work and still takes a place: the next plan must not see one missing
        # that this one saw at work
        ending = {action.instance for action in actions if isinstance(action, StopReplica)}
        live = sum(r.state is not State.DRAINING and r.instance not in ending for r in replicas)
        # within the maximum with those that are ending: the machine has to hold them, too
        missing = min(wish - live, self.scale.max - len(replicas))
        return actions + self._more(version, replicas, missing, hindered) if missing > 0 else actions

    def _wish(self, version: Version) -> int:
        """How many replicas the load asks for, within the bounds; an older version has one, whatever its load."""
        if version is not self.deployment.version:
            return min(self.scale.max, 1)
        asked = self.load.in_flight + self.load.waiting
        needed = -(-asked // max(1, self.scale.concurrency))
        return min(self.scale.max, max(self.scale.min, needed, int(self._is_asked(version))))

    def _is_asked(self, version: Version) -> bool:
        return self.asked or version.label in self.unfinished

    def _kept(self, replicas: list[Replica], wish: int) -> list[Replica]:
        """Those that stay: the serving before the starting, the older before the younger."""
        lingers = self.now - self.load.since < self.scale.linger
        most = self.scale.max if lingers else min(self.scale.max, wish)
        return sorted(replicas, key=lambda r: (_RANK.get(r.state, 1), r.since, r.instance))[:most]

    def _patience(self, replica: Replica) -> list[Action]:
        """One that is starting is waited for up to the limit."""
        if replica.state not in (State.NEW, State.STARTING):
            return []
        left = replica.since + self.policy.start_limit - self.now
        if left > 0:
            return [Wait(self.deployment.id, left)]
        # a NEW one waits for its launcher, whose answer, good or bad, comes by itself
        return [StopReplica(replica.instance, "start_timeout")] if replica.state is State.STARTING else []

    def _more(self, version: Version, replicas: list[Replica], missing: int, hindered: bool) -> list[Action]:
        """What brings more replicas of a version about."""
        id, status = self.deployment.id, self.rollout.of(version)
        build, attempts = status.build, status.attempts
        if build.state == "pending":
            return [StartBuild(id, version.label)]
        if build.state == "failed":
            # the network may have been away: what failed is tried again, but only for somebody and not too often
            again = self._is_asked(version) and self.now >= build.again
            return [StartBuild(id, version.label)] if again else []
        there = {replica.instance for replica in self.replicas}
        lost: list[Action] = [Lost(id, a.instance) for a in attempts if not a.ended and a.instance not in there]
        said, _ = verdict(attempts, self.policy)
        if lost or hindered or (said is Verdict.ASLEEP and not self._is_asked(version) and not there):
            return lost
        if wait := due(attempts, self.policy, self.now):
            return [Wait(id, wait)]
        if said in (Verdict.FAILED, Verdict.LOOPING):
            # one shows whether it is over before the rest follow
            missing = 0 if any(r.state in (State.NEW, State.STARTING) for r in replicas) else 1
        return [StartReplica(id, version.label)] * missing


def _stoppable(replica: Replica) -> bool:
    # NEW cannot be taken back, it is stopped once it is there; DRAINING is being stopped
    return replica.state in (State.STARTING, State.SERVING)

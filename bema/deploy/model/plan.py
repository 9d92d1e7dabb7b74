"""plan(desired, actual, now) -> actions: what would make instances equal deployments.

Laws: pure; level-triggered, so the same picture gives the same actions and a lost event costs nothing; how many replicas
there are is decided here and nowhere else, per version within its bounds; what is being started or is ending counts, so
nothing is started twice; no start while a build is pending. Versions run beside each other, and nothing that serves loses its
share of the requests before something serves in its place; but of what keeps data for one instance, the old one ends first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from bema.core.instance import State, Terms
from bema.deploy.model.deployment import Rollout, Version
from bema.deploy.model.function import Scale
from bema.deploy.model.replica import Replica
from bema.deploy.model.restarts import SECOND, RestartPolicy, Verdict, due, verdict
from bema.deploy.model.scaling import Wish


class StartBuild(msgspec.Struct, frozen=True):
    deployment: str
    version: str


class StartReplica(msgspec.Struct, frozen=True):
    """`slot` is the lowest that no replica of the version has, those that are ending included."""

    deployment: str
    version: str
    slot: int = 0


class GiveShare(msgspec.Struct, frozen=True):
    """Show an instance with another share of the requests, or with others that stay with its version."""

    instance: int
    share: int
    terms: Terms = Terms()


class Promote(msgspec.Struct, frozen=True):
    """The candidate is good and there: it is to have its share from now on."""

    deployment: str
    version: str


class GiveUp(msgspec.Struct, frozen=True):
    """The candidate failed while another version serves: it is not tried again."""

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


Action = StartBuild | StartReplica | StopReplica | GiveShare | Promote | GiveUp | Lost | Forget | Wait

_RANK = {State.SERVING: 0, State.DRAINING: 2}  # which replicas are kept first
_ONE = Wish(1)
IDLE: Final = "idle"
"""Why a replica is stopped that nobody uses."""
UNPROVEN: Final = "unproven"
"""Why a replica is stopped that serves, and was not found fit to take requests in time."""
_SEEN = SECOND
"""How long an instance without a share runs on: who sends requests may learn of it late."""


def plan(
    desired: Iterable[Rollout],
    actual: Iterable[Replica],
    now: int,
    policy: RestartPolicy = RestartPolicy(),  # noqa: B008 - frozen
    *,
    woken: frozenset[str] = frozenset(),
    leaving: frozenset[str] = frozenset(),
    scales: Mapping[str, Scale] | None = None,
    wishes: Mapping[str, Wish] | None = None,
    unfinished: Mapping[str, frozenset[str]] | None = None,
) -> list[Action]:
    """The actions due at `now`. `woken` are those somebody asks for; `leaving` are deleted and not yet forgotten.

    `scales` and `wishes` are by deployment; where there is none, the deployment's own scale holds, and one is wished for.
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
            (wishes or {}).get(id, _ONE),
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
        wish: Wish,
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
        self.wish = wish
        self.asked = asked or wish.asked
        self.unfinished = unfinished
        self.now = now
        self.policy = policy

    def actions(self) -> list[Action]:
        versions = self._wanted()
        labels = {version.label for version in versions}
        others = [each for each in self.replicas if each.version not in labels]
        shares, served = self._shares(versions)
        actions: list[Action] = []
        for other in others:
            actions += self._leave(other, served=served)
        for version in versions:
            replicas = [each for each in self.replicas if each.version == version.label]
            actions += self._version(version, replicas, bool(others) and self.deployment.keeps)
        later = [Wait(self.deployment.id, self.wish.again)] if self.wish.again else []
        return [*shares, *actions, *self._candidate(), *later]

    def _wanted(self) -> list[Version]:
        """The versions that are to run: those with a share, what is to have one, and those on which calls began that go on."""
        deployment = self.deployment
        if deployment.keeps:
            return [deployment.shown]
        labels = {*deployment.shares, deployment.candidate, *self.unfinished}
        return [version for version in deployment.versions if version.label in labels]

    def _shares(self, wanted: Sequence[Version]) -> tuple[list[Action], bool]:
        """What changes who is sent requests; and whether somebody serves who is meant to be."""
        share = {version.label: self.deployment.share_of(version) for version in wanted}
        stoppable = [each for each in self.replicas if _stoppable(each)]
        served = any(share.get(each.version) and _serves(each) for each in stoppable)
        more, less, terms = [], [], self.deployment.terms
        for replica in stoppable:
            due = share.get(replica.version, 0)
            if due > replica.share or (due == replica.share and terms != replica.terms):
                more.append(GiveShare(replica.instance, due, terms))
            elif due < replica.share and (due or served):
                less.append(GiveShare(replica.instance, due, terms))
        # after those that get more: at no time there is nobody
        return [*more, *less], served

    def _leave(self, other: Replica, *, served: bool) -> list[Action]:
        """What becomes of a replica of a version that is wanted no more."""
        if not _stoppable(other):
            return []
        if self.deployment.keeps or other.state is State.STARTING:
            return [StopReplica(other.instance, "replaced")]
        if other.share:
            return []  # told first that it gets none, once somebody serves in its place
        left = other.unshared + _SEEN - self.now
        return [Wait(self.deployment.id, left)] if 0 < left <= _SEEN else [StopReplica(other.instance, "replaced")]

    def _candidate(self) -> list[Action]:
        """Whether the candidate has come as far as it goes."""
        deployment, rollout = self.deployment, self.rollout
        candidate = deployment.named(deployment.candidate)
        if candidate is None:
            return []
        status = rollout.of(candidate)
        mine = [each for each in self.replicas if each.version == candidate.label]
        fit = sum(_serves(each) for each in mine)
        if status.was_good and fit >= max(1, self._wish(candidate)):
            return [Promote(deployment.id, candidate.label)]
        if not deployment.current or any(_serves(each) for each in mine):
            return []  # where nothing ever served, it is tried on and on
        failed = status.build.state == "failed" or (
            verdict(status.attempts, self.policy)[0] in (Verdict.FAILED, Verdict.LOOPING)
        )
        return [GiveUp(deployment.id, candidate.label)] if failed else []

    def _version(self, version: Version, replicas: list[Replica], hindered: bool) -> list[Action]:
        wish = self._wish(version)
        kept = self._kept(replicas, wish)
        reason = "replaced" if len(replicas) > self.scale.max else IDLE
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
        # of what never served the end is awaited: it tells when the next is due
        never = {a.instance for a in self.rollout.of(version).attempts if not (a.ready or a.ended)}
        if any(r.instance in never and (r.state is State.DRAINING or r.instance in ending) for r in replicas):
            return actions
        return actions + self._more(version, replicas, missing, hindered) if missing > 0 else actions

    def _wish(self, version: Version) -> int:
        """How many replicas are wished for, within the bounds; one for what has no share and none to come."""
        deployment = self.deployment
        share = deployment.shares.get(version.label, 100 if version.label == deployment.candidate else 0)
        if not share:
            return min(self.scale.max, max(self.wish.replicas, int(version.label in self.unfinished)), 1)
        needed = -(-self.wish.replicas * share // 100)
        asked_for = self._is_asked(version) or version.label == deployment.candidate
        return min(self.scale.max, max(self.scale.min, needed, int(asked_for)))

    def _is_asked(self, version: Version) -> bool:
        return self.asked or version.label in self.unfinished

    def _kept(self, replicas: list[Replica], wish: int) -> list[Replica]:
        """Those that stay: the serving before the starting, the older before the younger."""
        return sorted(replicas, key=lambda r: (_RANK.get(r.state, 1), r.since, r.instance))[:wish]

    def _patience(self, replica: Replica) -> list[Action]:
        """One that is starting, or has yet to show that it is fit, is waited for up to the limit."""
        on_trial = replica.state is State.SERVING and self._on_trial(replica)
        if replica.state not in (State.NEW, State.STARTING) and not on_trial:
            return []
        left = replica.since + self.policy.start_limit - self.now
        if left > 0:
            return [Wait(self.deployment.id, left)]
        if on_trial:
            return [StopReplica(replica.instance, UNPROVEN)]
        # a NEW one waits for its launcher, whose answer, good or bad, comes by itself
        return [StopReplica(replica.instance, "start_timeout")] if replica.state is State.STARTING else []

    def _on_trial(self, replica: Replica) -> bool:
        version = self.deployment.named(replica.version)
        return version is not None and self.rollout.on_trial(version)

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
        taken = {replica.slot for replica in replicas}
        free = (slot for slot in itertools.count() if slot not in taken)
        return [StartReplica(id, version.label, slot) for slot in itertools.islice(free, missing)]


def _serves(replica: Replica) -> bool:
    return replica.state is State.SERVING and replica.ready


def _stoppable(replica: Replica) -> bool:
    # NEW cannot be taken back, it is stopped once it is there; DRAINING is being stopped
    return replica.state in (State.STARTING, State.SERVING)

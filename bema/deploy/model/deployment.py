"""The nouns of deploying, how one stored picture becomes the next, and the one function from what is stored to what is told.

Law: stored are the Deployment, which is desired, and apart from it the status of each version: its build and its restart
history; instances are in Discovery and with the launcher. Every outward state is `outward()` of these; nobody stores a
state or keeps one of their own. Requests go to the current version, or by shares; a version that was
deployed is the candidate until it serves, and then takes them, or until it failed, and then nothing was changed.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Iterable, Sequence
from typing import Any, Final

import msgspec

from bema.core.errors import BemaError
from bema.core.instance import State, Terms
from bema.core.redaction import hides
from bema.deploy.model.bundle import SCRIPT
from bema.deploy.model.function import FunctionSettings, Scale
from bema.deploy.model.replica import Replica
from bema.deploy.model.restarts import SECOND, Attempt, RestartPolicy, Verdict, verdict, wait_after

# a build may fail for the network alone: tried soon, then less and less
_REBUILD, _REBUILD_LONGEST = 60 * SECOND, 3600 * SECOND


class Outward(enum.StrEnum):
    BUILDING = "building"
    BUILD_FAILED = "build_failed"
    STARTING = "starting"
    START_FAILED = "start_failed"
    CRASH_LOOP = "crash_loop"
    READY = "ready"
    IDLE = "idle"


class ScriptEntry(msgspec.Struct, frozen=True):
    """What the script holds, decided once: kind service, app, mcp or main, and the name of it; `file` is the one that is run."""

    kind: str = "main"
    name: str = "__main__"
    file: str = SCRIPT


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why something failed, as it is shown: a code of the errors table, and the text that explains it."""

    code: str
    message: str
    fix: str = ""
    detail: str = ""
    log: tuple[str, ...] = ()


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """Making a version runnable. `lock` is the user's: what was resolved once is installed again, not resolved again."""

    state: str = "pending"  # pending, done, failed
    key: str = ""  # of the environment; empty when the script needs none
    python: str = ""  # what to start
    release: tuple[int, ...] = ()
    lock: str = ""
    fault: Fault | None = None
    phases: dict[str, int] = {}  # milliseconds
    failures: int = 0  # in a row
    again: int = 0  # the instant from which a failed one is tried again, should somebody ask

    def followed_by(self, build: Build, now: int) -> Build:
        """`build`, made after this one."""
        if build.state != "failed":
            return build
        wait = wait_after(_REBUILD, self.failures + 1, _REBUILD_LONGEST)
        return msgspec.structs.replace(build, failures=self.failures + 1, again=now + wait)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable content of a deployment; `digest` is that of its Bundle, which the store holds."""

    number: int
    digest: str
    entry: ScriptEntry
    env: dict[str, str] = {}
    dependencies: tuple[str, ...] = ()
    requires_python: str = ""
    created: int = 0
    launcher: str = ""  # what starts it; empty for the platform's
    settings: FunctionSettings = FunctionSettings()  # with which a process of it is started
    source: str = "inline"  # where its files came from
    scripted: tuple[str, ...] = ()  # the variables of `env` that the script sets itself
    __repr__ = hides("env")

    @property
    def label(self) -> str:
        return f"v{self.number}"


KEPT: Final = 10
"""Versions beside the newest that one can go back to."""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """Desired state, with an owner. What became of it is in the status of each version, and nowhere here.

    `versions` are ordered, the newest last. `current` is the label of the version that took all requests last; `candidate` that
    of the one that is to take `candidate_share` percent of them once it is good. `traffic` is the share of requests, in percent, by
    label; empty means that `current` has all. `ValueError` for a label that is no version.
    """

    id: str
    name: str
    owner: str
    versions: tuple[Version, ...]
    created: int
    updated: int
    settings: FunctionSettings = FunctionSettings()  # in place: they hold for what runs, too
    current: str = ""
    candidate: str = ""
    candidate_share: int = 100
    traffic: dict[str, int] = {}

    def __post_init__(self) -> None:
        labels = {version.label for version in self.versions}
        if not labels:
            raise ValueError("a deployment has a version")
        # a share of nothing would send requests nowhere
        if unknown := {*self.traffic, self.current, self.candidate} - labels - {""}:
            raise ValueError(f"there is no version {', '.join(sorted(unknown))}")
        if self.traffic and sum(self.traffic.values()) != 100:
            raise ValueError("the shares of traffic are percents, 100 together")
        # what was stored before there were candidates is the newest's, and so is what never had a good one
        if not self.current and not self.candidate:
            msgspec.structs.force_setattr(self, "candidate", self.versions[-1].label)

    @property
    def version(self) -> Version:
        return self.versions[-1]

    def named(self, label: str) -> Version | None:
        return next((version for version in self.versions if version.label == label), None)

    @property
    def shares(self) -> dict[str, int]:
        """Percent of the requests by label of a version; empty where none was ever good."""
        return self.traffic or ({self.current: 100} if self.current else {})

    def share_of(self, version: Version) -> int:
        """What an instance of that version is shown with."""
        if self.shares:
            return self.shares.get(version.label, 0)
        # the first there is need not wait to be judged, unless it asked to be
        return 100 if version.label == self.candidate and not version.settings.health else 0

    @property
    def keeps(self) -> bool:
        """Whether what it writes is for one instance at a time."""
        return bool((self.named(self.candidate or self.current) or self.version).settings.keep)

    @property
    def rising(self) -> str:
        """The label of the version that somebody who asks for it waits for."""
        return self.candidate or self.current

    @property
    def shown(self) -> Version:
        """The version that speaks for the deployment: the current one, or what is to be."""
        label = self.candidate if self.keeps and self.candidate else self.current or self.candidate
        return self.named(label) or self.version

    @property
    def terms(self) -> Terms:
        return self.settings.terms

    @property
    def scale(self) -> Scale:
        scale = self.settings.scale
        # who calls a service without the gateway cannot wake it
        if self.settings.min_instances is None and self.shown.entry.kind == "service":
            scale = msgspec.structs.replace(scale, min=1)
        # of what is one instance's at a time, there are no two
        return msgspec.structs.replace(scale, min=min(scale.min, 1), max=1) if self.keeps else scale

    def promoted(self, at: int) -> Deployment:
        """With the candidate in traffic: it has all requests, or the share that it was to begin with."""
        share = self.candidate_share if self.shares else 100
        traffic = {} if share == 100 else _beside(self.shares, self.candidate, share)
        current = self.candidate if share == 100 else self.current
        return msgspec.structs.replace(
            self, current=current, candidate="", candidate_share=100, traffic=traffic, updated=at
        )

    def with_candidate(self, label: str, at: int, share: int = 100) -> Deployment:
        """With a version to bring up beside what serves."""
        return msgspec.structs.replace(self, candidate=label, candidate_share=share, updated=at)

    def given_up(self, at: int) -> Deployment:
        """Without a candidate: what serves goes on."""
        return msgspec.structs.replace(self, candidate="", candidate_share=100, updated=at)


def _beside(shares: dict[str, int], label: str, share: int) -> dict[str, int]:
    """Shares with one more, that of the others made smaller alike."""
    left = {other: part * (100 - share) // 100 for other, part in shares.items() if other != label}
    most = max(left, key=lambda other: (shares[other], other))
    left[most] += 100 - share - sum(left.values())
    return {**{other: part for other, part in left.items() if part}, label: share}


class VersionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one version: its build, and its restart history. Changed at each start; stored by itself."""

    build: Build = Build()
    attempts: tuple[Attempt, ...] = ()
    restarts: int = 0
    updated: int = 0
    good: int = 0  # the instant from which it was fit to take requests; 0 for not yet

    def built(self, build: Build, at: int) -> VersionStatus:
        """The status with another build, made after this one."""
        return msgspec.structs.replace(self, build=self.build.followed_by(build, at), updated=at)

    def afresh(self) -> VersionStatus:
        """The status with nothing against another try of a failed build."""
        return msgspec.structs.replace(self, build=msgspec.structs.replace(self.build, again=0))

    def renewed(self) -> VersionStatus:
        """The status with nothing against a start: what failed long ago says little of now."""
        build = Build(lock=self.build.lock) if self.build.state == "failed" else self.build
        return msgspec.structs.replace(self, build=build, attempts=())

    def proven(self, at: int) -> VersionStatus:
        """The status of a version that was found fit to take requests."""
        return self if self.good else msgspec.structs.replace(self, good=at, updated=at)

    @property
    def was_good(self) -> bool:
        # older records have the history alone
        return bool(self.good) or any(attempt.ready for attempt in self.attempts)

    def tried(self, attempts: tuple[Attempt, ...], at: int) -> VersionStatus:
        """The status with another restart history."""
        # the first start of a version is no restart
        more = bool(self.attempts) and attempts[-1].instance != self.attempts[-1].instance
        return msgspec.structs.replace(self, attempts=attempts, updated=at, restarts=self.restarts + more)


class Rollout(msgspec.Struct, frozen=True):
    """A deployment with the status of each of its versions, by label: all that is stored of it, put together."""

    deployment: Deployment
    statuses: dict[str, VersionStatus] = {}

    @property
    def id(self) -> str:
        return self.deployment.id

    @property
    def name(self) -> str:
        return self.deployment.name

    @property
    def owner(self) -> str:
        return self.deployment.owner

    @property
    def created(self) -> int:
        return self.deployment.created

    @property
    def version(self) -> Version:
        return self.deployment.version

    def of(self, version: Version) -> VersionStatus:
        return self.statuses.get(version.label, VersionStatus())

    @property
    def status(self) -> VersionStatus:
        """Of the newest version."""
        return self.of(self.version)

    @property
    def restarts(self) -> int:
        return sum(status.restarts for status in self.statuses.values())

    @property
    def updated(self) -> int:
        return max(self.deployment.updated, *(status.updated for status in self.statuses.values()), 0)

    def replaced(self, version: Version, at: int, unfinished: Container[str] = (), share: int = 100) -> Rollout:
        """With a newest version, as candidate, after the last that ever were good; what never was is not worth going back to.

        `unfinished` are the labels of versions with durable calls that have not ended: these are kept however old they are, as
        are those with a share of the requests. `share` is what the version is to begin with.
        """
        now = self.deployment
        # it serves, and was about to be promoted: it is what there is to go back to
        if not now.current and (first := now.named(now.candidate)) is not None and self.of(first).was_good:
            now = now.promoted(at)
        ever = [v for v in now.versions if self.of(v).was_good]
        kept = {*(v.label for v in ever[-KEPT:]), *now.shares}
        served = (v for v in now.versions if v.label in kept or v.label in unfinished)
        # numbers go on: in logs and records a label stands for one content for ever
        version = msgspec.structs.replace(version, number=self.version.number + 1)
        deployment = msgspec.structs.replace(
            now, versions=(*served, version), candidate=version.label, candidate_share=share, updated=at
        )
        return Rollout(deployment, {v.label: self.of(v) for v in deployment.versions})

    def on_trial(self, version: Version) -> bool:
        """Whether it has yet to show that it is fit to take requests."""
        now = self.deployment
        judged = bool(now.current or version.settings.health)
        return version.label == now.candidate and judged and not self.of(version).was_good

    def seen(self, version: Version, replicas: Iterable[Replica]) -> Replica | None:
        """The instance that speaks for a version: one that serves, else the first that was started."""
        there = list(replicas)
        found = [each for each in there if each.version == version.label and each.state is not State.NEW]
        best = next((each for each in found if each.state is State.SERVING), found[0] if found else None)
        if best is None:
            return None
        # until records say so, requests are sent as they were before
        unsent = self.deployment.share_of(version) > 0 and (not best.share or any(map(self._stays, there)))
        return best.marked(ready=False, stalled=best.stalled) if unsent or self.on_trial(version) else best

    def _stays(self, replica: Replica) -> bool:
        """Whether it is still sent requests that others are to have."""
        version = self.deployment.named(replica.version)
        meant = 0 if version is None else self.deployment.share_of(version)
        return bool(replica.share) and not meant and replica.state is State.SERVING

    @property
    def wanted(self) -> Version:
        """The version that was asked for last: what rises, or serves."""
        return self.deployment.named(self.deployment.rising) or self.version

    @property
    def before(self) -> Version | None:
        """The version to go back to: the last good one before the current."""
        number = self.deployment.shown.number
        good = [v for v in self.deployment.versions if v.number < number and self.of(v).was_good]
        return good[-1] if good else None

    @property
    def latest(self) -> Version | None:
        """The version beside the one that is shown of which there is something to tell: it rises, or it failed."""
        now = self.deployment
        if (rising := now.named(now.candidate)) is not None:
            return rising if rising is not now.shown else None
        failed = now.version is not now.shown and not self.of(now.version).was_good
        return now.version if failed and now.version.label not in now.shares else None

    def after(self, status: VersionStatus, label: str = "") -> Rollout:
        """With another status of a version; of the newest, unless one is named."""
        return Rollout(self.deployment, {**self.statuses, label or self.version.label: status})


FAILURES = (Outward.BUILD_FAILED, Outward.START_FAILED, Outward.CRASH_LOOP)
"""The states in which nothing serves and something is wrong: whatever is deployed then takes the place."""


class CreateRequest(msgspec.Struct, frozen=True):
    """What somebody wants deployed. `source` says where its files are, by `type`; `owner` is who else is to own it, where
    who asks may act for others; `replace` says that what has the name already is to become this; `share` is the percentage of
    requests that a version of something deployed begins with."""

    name: str
    source: dict[str, Any]
    env: dict[str, str] = {}
    settings: FunctionSettings = FunctionSettings()
    replace: bool = False
    owner: str = ""
    share: int = 100
    __repr__ = hides("env", "source")


class InstanceInfo(msgspec.Struct, frozen=True):
    """What the API tells of a replica."""

    id: str
    pid: int
    state: str
    since: int
    ready: bool = True
    stalled: bool = False
    stands: str = ""  # where, while it is stalled

    @classmethod
    def of(cls, replica: Replica) -> InstanceInfo:
        return cls(
            replica.label,
            replica.pid,
            str(replica.state),
            replica.since,
            ready=replica.ready,
            stalled=replica.stalled,
            stands=replica.stands,
        )


class VersionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the API tells of one version; `share` is its percentage of the requests."""

    version: str
    state: str
    created: int
    share: int = 0
    good: int = 0  # the instant from which it was fit to take requests
    current: bool = False
    source: str = ""
    digest: str = ""
    restarts: int = 0
    error: Fault | None = None


class DeploymentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the API tells of a deployment: of the version that serves, or is to. `latest` is another one that is being brought up,
    or failed, while that one serves; `traffic` is the share of each version that has one."""

    id: str
    name: str
    owner: str
    version: str
    state: str
    kind: str
    created: int
    updated: int
    error: Fault | None = None
    instance: InstanceInfo | None = None
    restarts: int = 0
    phases: dict[str, int] = {}
    latest: VersionInfo | None = None
    traffic: dict[str, int] = {}
    settings: FunctionSettings = FunctionSettings()
    progress: str = ""  # what a build does just now


class DeploymentPage(msgspec.Struct, frozen=True):
    items: list[DeploymentInfo]
    next: str | None = None


class DataInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the API tells of what a function wrote: `deployment` has it, or it is kept since the instant `kept`.

    More than 100,000 files are not counted.
    """

    id: str
    name: str
    owner: str
    deployment: str | None
    kept: int
    files: int
    bytes: int


class Activation(msgspec.Struct, frozen=True):
    """What a waiting request is told: go (ready), or why not and when to come again."""

    state: str
    retry_after: float | None = None
    error: Fault | None = None


def outward(status: VersionStatus, replica: Replica | None, policy: RestartPolicy) -> Outward:
    """The one state that everybody is told."""
    if status.build.state != "done":
        return Outward.BUILD_FAILED if status.build.state == "failed" else Outward.BUILDING
    if replica is not None and replica.state is State.SERVING:
        # no history is asked: whatever came before it, this one serves
        return Outward.READY if replica.ready else Outward.STARTING
    said, _ = verdict(status.attempts, policy)
    if said is Verdict.FAILED:
        return Outward.START_FAILED
    if said is Verdict.LOOPING:
        return Outward.CRASH_LOOP
    return Outward.IDLE if said is Verdict.ASLEEP and replica is None and _over(status) else Outward.STARTING


def _over(status: VersionStatus) -> bool:
    return bool(status.attempts) and bool(status.attempts[-1].ended)


def fault(name: str, status: VersionStatus, state: Outward) -> Fault | None:
    """What is wrong, in the states where something is."""
    if state is Outward.BUILD_FAILED:
        return status.build.fault
    if state not in (Outward.START_FAILED, Outward.CRASH_LOOP):
        return None
    # a start that is under way says nothing yet of what is wrong
    last = next(a for a in reversed(status.attempts) if a.ended)
    problem = BemaError(code=last.cause if last.cause == "secret_missing" else str(state))
    return Fault(problem.code, _end_of(last, name), problem.fix, log=last.log)


def _end_of(attempt: Attempt, name: str) -> str:
    """The end of an attempt as a sentence."""
    match attempt.cause:
        case "start_timeout":
            stood = attempt.message.partition(": it stood in ")[2]
            return f"{name}: no listener after {(attempt.ended - attempt.at) / 1e6:.0f} s" + (
                f": it stood in {stood}" if stood else ""
            )
        case "spawn" | "secret_missing":
            return f"{name} cannot be started: {attempt.message}"
        case "lost":
            return f"{name}: its end was not seen"
        case "unproven":
            return f"{name} was never fit to take requests: {attempt.message}"
    how = f"it was ended by signal {attempt.signal}" if attempt.signal else f"it ended with code {attempt.code}"
    return f"{name} {'died' if attempt.ready else 'never listened'}: {attempt.message or how}"


def describe(
    rollout: Rollout,
    replicas: Sequence[Replica],
    policy: RestartPolicy,
    held: Fault | None = None,
) -> DeploymentInfo:
    """A deployment as the API shows it; `held` is what keeps the machine from going on with it."""
    deployment, version = rollout.deployment, rollout.deployment.shown
    status, replica = rollout.of(version), rollout.seen(version, replicas)
    state = outward(status, replica, policy)
    latest = rollout.latest
    return DeploymentInfo(
        id=deployment.id,
        name=deployment.name,
        owner=deployment.owner,
        version=version.label,
        state=str(state),
        kind=version.entry.kind,
        created=deployment.created,
        updated=rollout.updated,
        error=fault(deployment.name, status, state) or held,
        instance=None if replica is None else InstanceInfo.of(replica),
        restarts=rollout.restarts,
        phases=status.build.phases | (replica.phases if replica else {}),
        latest=None if latest is None else describe_version(rollout, latest, replicas, policy),
        traffic=deployment.shares,
        settings=deployment.settings.over(version.settings),
    )


def describe_version(
    rollout: Rollout, version: Version, replicas: Sequence[Replica], policy: RestartPolicy
) -> VersionInfo:
    """One version as the API shows it."""
    status = rollout.of(version)
    state = outward(status, rollout.seen(version, replicas), policy)
    return VersionInfo(
        version=version.label,
        state=str(state),
        created=version.created,
        share=rollout.deployment.shares.get(version.label, 0),
        good=status.good,
        current=version.label == rollout.deployment.current,
        source=version.source,
        digest=version.digest,
        restarts=status.restarts,
        error=fault(rollout.name, status, state),
    )


def fault_of(error: BemaError, **more: Any) -> Fault:
    """An error as it is stored and shown."""
    log = error.details.get("log") or ()
    return Fault(error.code, error.message, error.fix, detail=str(error.details.get("detail", "")), log=tuple(log))

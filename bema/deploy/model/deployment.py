"""The nouns of deploying, and the one function from what is stored to what is told.

Law: stored are the Deployment, which is desired, and apart from it the status of each version: its build and its restart
history; instances are in Discovery and with the launcher. Every outward state is `outward()` of these; nobody stores a
state or keeps one of their own.
"""

from __future__ import annotations

import enum
from collections.abc import Container
from typing import Any, Final

import msgspec

from bema.core.errors import BemaError
from bema.core.instance import State
from bema.core.redaction import hides
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
    """What the script holds, decided once: kind service, app, mcp or main, and the name of it."""

    kind: str = "main"
    name: str = "__main__"


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
    __repr__ = hides("env")

    @property
    def label(self) -> str:
        return f"v{self.number}"


KEPT: Final = 10
"""Versions beside the newest that one can go back to."""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """Desired state, with an owner. What became of it is in the status of each version, and nowhere here.

    `versions` are ordered, the newest last. `traffic` is the share of requests, in percent, by version label; empty means
    that the newest has all of it. `aliases` name versions: alias -> label. `ValueError` for a label that is no version.
    """

    id: str
    name: str
    owner: str
    versions: tuple[Version, ...]
    created: int
    updated: int
    scale: Scale = Scale()
    settings: FunctionSettings = FunctionSettings()  # in place: they hold for what runs, too
    traffic: dict[str, int] = {}
    aliases: dict[str, str] = {}

    def __post_init__(self) -> None:
        labels = {version.label for version in self.versions}
        if not labels:
            raise ValueError("a deployment has a version")
        # a share of nothing would send requests nowhere
        if unknown := {*self.traffic, *self.aliases.values()} - labels:
            raise ValueError(f"there is no version {', '.join(sorted(unknown))}")
        if self.traffic and sum(self.traffic.values()) != 100:
            raise ValueError("the shares of traffic are percents, 100 together")

    @property
    def version(self) -> Version:
        return self.versions[-1]


class VersionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one version: its build, and its restart history. Changed at each start; stored by itself."""

    build: Build = Build()
    attempts: tuple[Attempt, ...] = ()
    restarts: int = 0
    updated: int = 0

    def built(self, build: Build, at: int) -> VersionStatus:
        """The status with another build, made after this one."""
        return msgspec.structs.replace(self, build=self.build.followed_by(build, at), updated=at)

    def afresh(self) -> VersionStatus:
        """The status with nothing against another try of a failed build."""
        return msgspec.structs.replace(self, build=msgspec.structs.replace(self.build, again=0))

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

    def replaced(self, version: Version, at: int, unfinished: Container[str] = ()) -> Rollout:
        """With a newest version after the last that ever served; what never did is not worth going back to.

        `unfinished` are the labels of versions with durable calls that have not ended: these are kept however old they are.
        """
        ever = [v for v in self.deployment.versions if any(a.ready for a in self.of(v).attempts)]
        served = (v for v in ever if v in ever[-KEPT:] or v.label in unfinished)
        # numbers go on: in logs and records a label stands for one content for ever
        version = msgspec.structs.replace(version, number=self.version.number + 1)
        deployment = msgspec.structs.replace(
            self.deployment, versions=(*served, version), traffic={}, aliases={}, updated=at
        )
        return Rollout(deployment, {v.label: self.of(v) for v in deployment.versions})

    def after(self, status: VersionStatus, label: str = "") -> Rollout:
        """With another status of a version; of the newest, unless one is named."""
        return Rollout(self.deployment, {**self.statuses, label or self.version.label: status})


FAILURES = (Outward.BUILD_FAILED, Outward.START_FAILED, Outward.CRASH_LOOP)
"""The states in which nothing serves and something is wrong: whatever is deployed then takes the place."""


class CreateRequest(msgspec.Struct, frozen=True):
    name: str
    code: str
    env: dict[str, str] = {}
    __repr__ = hides("env")


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


class DeploymentInfo(msgspec.Struct, frozen=True, kw_only=True):
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
    problem = BemaError(code=str(state))
    return Fault(problem.code, _end_of(last, name), problem.fix, log=last.log)


def _end_of(attempt: Attempt, name: str) -> str:
    """The end of an attempt as a sentence."""
    match attempt.cause:
        case "start_timeout":
            stood = attempt.message.partition(": it stood in ")[2]
            return f"{name}: no listener after {(attempt.ended - attempt.at) / 1e6:.0f} s" + (
                f": it stood in {stood}" if stood else ""
            )
        case "spawn":
            return f"{name} cannot be started: {attempt.message}"
        case "lost":
            return f"{name}: its end was not seen"
    how = f"it was ended by signal {attempt.signal}" if attempt.signal else f"it ended with code {attempt.code}"
    return f"{name} {'died' if attempt.ready else 'never listened'}: {attempt.message or how}"


def describe(
    rollout: Rollout, replica: Replica | None, policy: RestartPolicy, held: Fault | None = None
) -> DeploymentInfo:
    """A deployment as the API shows it; `held` is what keeps the machine from going on with it."""
    deployment, status = rollout.deployment, rollout.status
    state = outward(status, replica, policy)
    return DeploymentInfo(
        id=deployment.id,
        name=deployment.name,
        owner=deployment.owner,
        version=deployment.version.label,
        state=str(state),
        kind=deployment.version.entry.kind,
        created=deployment.created,
        updated=rollout.updated,
        error=fault(deployment.name, status, state) or held,
        instance=None if replica is None else InstanceInfo.of(replica),
        restarts=rollout.restarts,
        phases=status.build.phases | (replica.phases if replica else {}),
    )


def fault_of(error: BemaError, **more: Any) -> Fault:
    """An error as it is stored and shown."""
    log = error.details.get("log") or ()
    return Fault(error.code, error.message, error.fix, detail=str(error.details.get("detail", "")), log=tuple(log))

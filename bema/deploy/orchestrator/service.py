"""The orchestrator: the service that holds what is deployed and sees to it that it runs.

Laws: every operation is a principal's, and nobody's is refused; who asks sees what is theirs, and "not yours" and "not there"
look the same; a mutation is committed before its reply; whatever takes long goes on after the reply, and `read` tells how
far it came. Warm traffic never comes here.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import hashlib
import logging
import os
import time
import uuid
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec

from bema.core.access import Kind, Principal, Scope
from bema.core.errors import Conflict, Denied, Invalid, NotFound
from bema.core.instance import State
from bema.core.naming import check_deployment
from bema.core.version import VERSION
from bema.deploy.model.changes import ChangeInfo, change_of
from bema.deploy.model.deployment import (
    FAILURES,
    Activation,
    CreateRequest,
    DataInfo,
    Deployment,
    DeploymentInfo,
    DeploymentPage,
    Outward,
    Rollout,
    Version,
    VersionInfo,
    VersionStatus,
    describe_version,
    outward,
)
from bema.deploy.model.function import FunctionSettings, check_settings
from bema.deploy.model.replica import Replica, chosen
from bema.deploy.model.restarts import SECOND, due
from bema.deploy.model.scaling import Loads
from bema.deploy.model.stack import Profile, Stack
from bema.deploy.orchestrator import data, logs
from bema.deploy.orchestrator.acting import acting
from bema.deploy.orchestrator.events import DeploymentEvent
from bema.deploy.orchestrator.groundwork import answered
from bema.deploy.orchestrator.index import DeploymentIndex
from bema.deploy.orchestrator.keys import KeyOperations
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.orchestrator.reconciler import Reconciler
from bema.deploy.orchestrator.secrets import SecretOperations
from bema.deploy.orchestrator.upgrades import UpgradeOperations
from bema.deploy.orchestrator.wanted import WantedVersion, wanted_version
from bema.deploy.store.records import StoredReply, UnreadableDeployment
from bema.runtime.tasks import Tasks
from bema.sdk.decorators import endpoint, service

logger = logging.getLogger(__name__)

_BUILDING_RETRY = 2.0
_LARGEST_PAGE = 1000


@service(name="orchestrator", namespace="bema")
class Orchestrator(KeyOperations, SecretOperations, UpgradeOperations):
    """`begin` before the first call, `end` after the last one."""

    _index: DeploymentIndex
    _running: asyncio.Task[None]

    def __init__(self) -> None:
        # weak: a lock lives as long as somebody holds it or waits for it
        self._creating: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._naming: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = weakref.WeakValueDictionary()

    async def begin(self, parts: Parts, failed: Callable[[], None] = lambda: None) -> None:
        """Take charge of what the store says and the launcher runs. `failed` is told when that ends by itself."""
        self._parts = parts
        parts.store.failed = failed
        store = parts.store
        self._index = DeploymentIndex([*store.deployments().values(), *store.unreadable().values()])
        self._reconciler = Reconciler(parts)
        self._renewing = Tasks("secrets")
        await self._reconciler.adopt()
        self._running = asyncio.create_task(self._reconciler.run(), name="reconciler")

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                logger.error("the reconciler ended", exc_info=task.exception())
                failed()

        self._running.add_done_callback(ended)
        self._renewing.start(self.renew_old(), "secrets that changed before")

    async def end(self) -> None:
        """Stop looking after instances; they run on."""
        await self._renewing.stop()
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._parts.store.close()

    @endpoint
    async def create(self, request: CreateRequest, principal: Principal, key: str = "") -> DeploymentInfo:
        """Check and store a script, owned by who asks; building and starting follow. The same `key` gives the same answer.

        A name that is taken is a `Conflict` (name_taken), unless what has it failed, or is to be replaced.
        """
        asks = acting(principal, Scope.WRITE)
        owner = _owner(request, asks)
        return await self._once(key, asks, request, lambda answer: self._create(request, owner, answer))

    @endpoint
    async def update(self, id: str, request: CreateRequest, principal: Principal, key: str = "") -> DeploymentInfo:
        """Make what is asked for the next version of a deployment, under its id and name.

        Where it says no variables, those that are there stay. What would be the very same but for what changes in place is
        no new version.
        """
        asks = acting(principal, Scope.WRITE)
        old = self._readable(id, asks)

        async def work(answer: StoredReply | None) -> DeploymentInfo:
            said = msgspec.structs.replace(request, name=old.name)
            wanted = await self._wanted(said, old)
            return await self._next(old, wanted, said.share, answer)

        return await self._once(key, asks, request, work)

    async def _once(
        self,
        key: str,
        asks: Principal,
        request: CreateRequest,
        work: Callable[[StoredReply | None], Awaitable[DeploymentInfo]],
    ) -> DeploymentInfo:
        """What `work` gives, or gave when the key was used before."""
        if not key:
            return await work(None)
        owned = f"{asks.subject}/{key}"
        # deterministic: the same variables in another order are the same request
        digest = hashlib.sha256(msgspec.json.encode(request, order="deterministic")).hexdigest()
        # a repetition that overtakes the first request must find its answer, not its name taken
        async with self._creating.setdefault(owned, asyncio.Lock()):
            given = self._parts.store.answer(owned, digest)
            if given is not None:
                return msgspec.json.decode(given, type=DeploymentInfo)
            return await work(StoredReply(owned, digest, b""))

    async def _create(self, request: CreateRequest, owner: str, answer: StoredReply | None) -> DeploymentInfo:
        check_deployment(request.name)
        # before the work: a name that is taken needs none of it
        wanted = await self._wanted(request, self._in_place_of(owner, request))
        # looked at again, by one at a time: inspecting took a while, and others may have deployed meanwhile
        async with self._naming.setdefault((owner, request.name), asyncio.Lock()):
            if (there := self._in_place_of(owner, request)) is not None:
                return await self._next(there, wanted, request.share, answer)
            return await self._add(request.name, owner, wanted, answer)

    async def _add(self, name: str, owner: str, wanted: WantedVersion, answer: StoredReply | None) -> DeploymentInfo:
        now = wanted.version.created
        deployment = Deployment(
            id=str(uuid.uuid4()),
            name=name,
            owner=owner,
            versions=(wanted.version,),
            created=now,
            updated=now,
            settings=wanted.in_place,
        )
        info = self._info(Rollout(deployment))
        await self._parts.store.create(deployment, wanted.bundle, answered(answer, info))
        self._index.add(deployment)
        self._reconciler.wake(deployment.id)
        return info

    def _in_place_of(self, owner: str, request: CreateRequest) -> Rollout | None:
        """The deployment of that name where this may take its place; None where there is none."""
        if (id := self._index.named(owner, request.name)) is None:
            return None
        found = self._parts.store.rollouts().get(id)
        if found is None or not (request.replace or self._info(found).state in FAILURES):
            raise Conflict(f"a deployment named {request.name!r} exists", id=id)
        return found

    async def _wanted(self, request: CreateRequest, old: Rollout | None) -> WantedVersion:
        """What is asked for as a version, with its files; or the error that whoever deploys should see."""
        if not 1 <= request.share <= 100:
            raise Invalid(f"share is {request.share}, not between 1 and 100")
        return await wanted_version(request, old, self._parts)

    async def _next(
        self, old: Rollout, wanted: WantedVersion, share: int, answer: StoredReply | None
    ) -> DeploymentInfo:
        def then(rollout: Rollout) -> Rollout:
            unfinished, failed = self._reconciler.calls.kept(rollout.id), self._info(rollout).state in FAILURES
            return wanted.after(rollout, unfinished, failed=failed, share=share)

        return await self._replace(old.id, then, wanted.bundle, answer)

    @endpoint(idempotent=True)
    async def dry_run(self, request: CreateRequest, principal: Principal) -> ChangeInfo:
        """What `create` with `replace` would change; nothing is stored."""
        check_deployment(request.name)
        asks = acting(principal, Scope.WRITE)
        id = self._index.named(_owner(request, asks), request.name)
        old = None if id is None else self._parts.store.rollouts().get(id)
        wanted = await self._wanted(request, old)
        failed = old is not None and self._info(old).state in FAILURES
        return change_of(request.name, old, wanted.version, wanted.in_place, failed=failed)

    @endpoint
    async def configure(self, id: str, settings: FunctionSettings, principal: Principal) -> DeploymentInfo:
        """Change what needs no new process; `Invalid` for what does, which comes with a version."""
        check_settings(settings)
        if (others := settings.of_version()) != FunctionSettings():
            names = ", ".join(msgspec.to_builtins(others))
            raise Invalid(f"{names}: needs a new version", fix="Deploy it again with the setting.")
        return await self._desire(
            id,
            principal,
            lambda r: msgspec.structs.replace(
                r.deployment, settings=settings.over(r.deployment.settings), updated=self._parts.clock.now()
            ),
        )

    @endpoint(idempotent=True)
    async def versions(self, id: str, principal: Principal) -> builtins.list[VersionInfo]:
        """The versions of a deployment, the newest first."""
        rollout = self._readable(id, acting(principal, Scope.READ))
        replicas = self._reconciler.instances_of(id)
        told = [describe_version(rollout, each, replicas, self._parts.policy) for each in rollout.deployment.versions]
        return told[::-1]

    @endpoint
    async def rollback(self, id: str, version: str, principal: Principal) -> DeploymentInfo:
        """Go back to a version, or, without one, to the good one before the current: it is started beside what serves, and
        takes all requests once it serves."""
        rollout = self._readable(id, acting(principal, Scope.WRITE))
        target = _named(rollout, version) if version else rollout.before
        if target is None:
            raise Invalid(
                f"{rollout.name} has no good version before {rollout.deployment.shown.label}", code="conflict"
            )
        return await self._bring_up(rollout, target, principal)

    @endpoint
    async def traffic(
        self, id: str, shares: dict[str, int], sticky: str | None, principal: Principal
    ) -> DeploymentInfo:
        """Share requests out by percent among versions that were good; all of them to one promotes it, none given to any
        gives them to the current one again. `sticky` is that of the settings, and empty for none."""
        rollout = self._readable(id, acting(principal, Scope.WRITE))
        wanted = {_named(rollout, label).label: share for label, share in shares.items() if share}
        if any(share < 0 for share in shares.values()) or sum(wanted.values()) not in (0, 100):
            raise Invalid("the shares are percents, 100 together")
        for label in wanted:
            if not rollout.statuses.get(label, VersionStatus()).was_good:
                raise Invalid(f"{label} of {rollout.name} never served", code="conflict", fix="Deploy it again.")
        if sticky is not None:
            check_settings(FunctionSettings(sticky=sticky or None))
            stays = sticky or None
            await self._desire(id, principal, lambda r: _sticking(r.deployment, stays))
        if len(wanted) == 1:
            return await self._bring_up(rollout, _named(rollout, next(iter(wanted))), principal)
        if sticky is not None and not shares:
            return self._info(self._owned(id, principal))
        return await self._desire(id, principal, lambda r: _shared(r, wanted, self._parts.clock.now()))

    async def _bring_up(self, rollout: Rollout, target: Version, principal: Principal) -> DeploymentInfo:
        now = self._parts.clock.now()
        if target.label == rollout.deployment.current:
            return await self._desire(rollout.id, principal, lambda r: _shared(r, {}, now))
        # what failed long ago says nothing of now
        if not any(each.version == target.label for each in self._reconciler.instances_of(rollout.id)):
            await self._reconciler.change(rollout.id, target.label, VersionStatus.renewed)
        return await self._desire(rollout.id, principal, lambda r: _rising(r, target, now))

    async def _desire(
        self, id: str, principal: Principal, how: Callable[[Rollout], Deployment | None]
    ) -> DeploymentInfo:
        asks = acting(principal, Scope.WRITE)
        self._readable(id, asks)
        await self._reconciler.desire(id, how)
        return self._info(self._owned(id, asks))

    @endpoint
    async def events(
        self, id: str, principal: Principal, follow: bool = False, since: int = 0
    ) -> AsyncIterator[DeploymentEvent]:
        """What became of a deployment, as far back as it is remembered and later than `since`; with `follow`, as it comes."""
        self._owned(id, acting(principal, Scope.READ))
        while True:
            changed = self._reconciler.changed(id)
            for event in self._reconciler.events.of(id, since):
                since = event.at
                yield event
            if not follow or self._stored(id) is None:
                return
            await changed.wait()

    @endpoint(idempotent=True)
    async def read(self, id: str, principal: Principal) -> DeploymentInfo:
        return self._info(self._owned(id, acting(principal, Scope.READ)))

    @endpoint(idempotent=True)
    async def list(self, principal: Principal, after: str = "", count: int = 100) -> DeploymentPage:
        """Deployments, oldest first, without their failures' texts; `after` is the `next` of the page before."""
        asks, count = acting(principal, Scope.READ), max(1, min(count, _LARGEST_PAGE))
        ids, following = self._index.page(asks, after, count)
        stored = (self._stored(id) for id in ids)
        return DeploymentPage([_brief(self._info(one)) for one in stored if one is not None], following)

    @endpoint
    async def delete(self, id: str, principal: Principal, purge: bool = False) -> None:
        """Forget a deployment; its instance is stopped after the reply. What it wrote is kept, unless with `purge`."""
        stored = self._owned(id, acting(principal, Scope.WRITE))
        # read before: with the deployment goes what tells whose folder it has
        home = self._parts.store.home(stored.deployment if isinstance(stored, Rollout) else stored)
        await self._parts.store.delete(id, purge=purge, at=self._parts.clock.now())
        # after the commit: until then the name is taken, and no request may find it free
        self._index.remove(stored)
        self._reconciler.leave(id, home)

    @endpoint(idempotent=True)
    async def data(self, principal: Principal, name: str = "", kept: bool = False) -> builtins.list[DataInfo]:
        """What functions wrote: of one name, or of all; with `kept`, only what no deployment has any more."""
        return await data.listed(acting(principal, Scope.READ), self._parts, name, kept=kept)

    @endpoint
    async def purge(self, id: str, principal: Principal) -> None:
        """Delete what was kept of a deployment that is gone."""
        asks = acting(principal, Scope.WRITE)
        found = next((each for each in self._parts.store.data() if each.id == id and asks.sees(each.owner)), None)
        if found is None:
            raise NotFound(f"there is no data {id}")
        await self._parts.store.purge(found)
        if not self._reconciler.has(id):  # else it goes with who still writes there
            await data.remove(id, self._parts)

    @endpoint(idempotent=True)
    async def activate(self, id: str, wait: float, principal: Principal) -> Activation:
        """Wait until the deployment is ready or will not be, at most `wait` seconds; start it if it sleeps."""
        asks = acting(principal, Scope.ACTIVATE)
        deadline = time.monotonic() + wait
        while True:
            found = self._owned(id, asks)
            # taken before the look: a change between look and wait must wake us
            changed = self._reconciler.changed(id)
            told = self._activation(found)
            if told.state in (Outward.IDLE, Outward.BUILD_FAILED) or _all_leave(self._reconciler.instances_of(id)):
                self._reconciler.wake(id)
            left = deadline - time.monotonic()
            if told.state not in (Outward.IDLE, Outward.STARTING) or left <= 0:
                return told
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await changed.wait()

    @endpoint(idempotent=True)
    async def loads(self, report: Loads, principal: Principal) -> None:
        """Take in what a gateway has in flight, and which draining instances it has nothing in flight at any more."""
        asks = acting(principal, Scope.ACTIVATE)
        stored = self._parts.store.rollouts()
        known = [
            load for load in report.loads if load.deployment in stored and asks.sees(stored[load.deployment].owner)
        ]
        self._reconciler.loads.take(msgspec.structs.replace(report, loads=tuple(known)))

    def gateways(self) -> None:
        """Another gateway is there, or one went."""
        self._reconciler.loads.are(self._parts.gateways())

    async def settled(self, id: str, principal: Principal) -> DeploymentInfo:
        """Wait until what was begun with a deployment has come out, well or badly."""
        asks = acting(principal, Scope.READ)
        while True:
            changed = self._reconciler.changed(id)
            info = self._info(self._owned(id, asks))
            rising = (info.latest is not None and info.latest.error is None) or (
                info.state == Outward.READY and not info.traffic
            )
            if not rising and info.state not in (Outward.BUILDING, Outward.STARTING, Outward.IDLE):
                return info
            await changed.wait()

    @endpoint
    async def logs(
        self,
        id: str,
        principal: Principal,
        tail: int = 100,
        follow: bool = False,
        since: int = 0,
        version: str = "",
        instance: str = "",
    ) -> AsyncIterator[dict[str, Any]]:
        """The last `tail` lines not older than `since`, of all instances or of a version or instance, then, with `follow`, each new
        one."""
        self._owned(id, acting(principal, Scope.READ))
        lines = logs.read(
            self._parts.logs(id),
            tail=tail,
            follow=follow,
            since=since,
            version=version,
            instance=instance,
            # who follows is told that the deployment went by the end of the log
            alive=lambda: id in self._parts.store.rollouts(),
        )
        async with contextlib.aclosing(lines):
            async for line in lines:
                yield line

    @endpoint(idempotent=True)
    async def stack(self, id: str, principal: Principal, version: str = "", instance: str = "") -> Stack:
        """Where the threads and tasks of an instance stand: of that version, of that label, or of the one that serves."""
        return await self._parts.launcher.stack(self._meant(id, principal, version, instance))

    @endpoint(idempotent=True)
    async def profile(
        self,
        id: str,
        principal: Principal,
        seconds: float = 5.0,
        idle: bool = False,
        version: str = "",
        instance: str = "",
    ) -> Profile:
        """Where the time of an instance goes in the `seconds` to come; with `idle`, that of threads that wait, too."""
        found = self._meant(id, principal, version, instance)
        return await self._parts.launcher.profile(found, seconds, idle=idle)

    def _meant(self, id: str, principal: Principal, version: str, instance: str) -> int:
        stored = self._owned(id, acting(principal, Scope.READ))
        found = chosen(self._reconciler.instances_of(id), version, instance)
        if found is None:
            which = " ".join(filter(None, ("instance", instance, version and f"of {version}")))
            raise NotFound(f"no {which} of {stored.name} runs", fix="`bema ls` shows what does; a request starts one.")
        return found.instance

    @endpoint(idempotent=True)
    async def status(self, principal: Principal) -> dict[str, Any]:
        acting(principal, Scope.STATUS)
        store = self._parts.store
        states = Counter(map(self._state, store.rollouts().values()))
        states.update(aside.state for aside in store.unreadable().values())
        return {
            "pid": os.getpid(),
            "version": VERSION,
            "deployments": dict(sorted(states.items())),
            "instances": self._reconciler.instances(),
        }

    def _state(self, rollout: Rollout) -> str:
        shown, replicas = rollout.deployment.shown, self._reconciler.instances_of(rollout.id)
        return str(outward(rollout.of(shown), rollout.seen(shown, replicas), self._parts.policy))

    def _activation(self, stored: Rollout | UnreadableDeployment) -> Activation:
        info = self._info(stored)
        match info.state:
            case Outward.BUILDING:
                return Activation(info.state, _BUILDING_RETRY, None)
            case Outward.BUILD_FAILED | Outward.START_FAILED | Outward.CRASH_LOOP:
                # `Retry-After` has whole seconds: none would be asked again at once
                return Activation(info.state, max(1.0, self._wait(stored, info.state) / SECOND), info.error)
        return Activation(info.state, None, info.error)

    def _wait(self, stored: Rollout | UnreadableDeployment, state: str) -> int:
        """Microseconds until what failed is tried again."""
        if isinstance(stored, UnreadableDeployment):
            return 0
        now, status = self._parts.clock.now(), stored.of(stored.deployment.shown)
        if state == Outward.BUILD_FAILED:
            return status.build.again - now
        return due(status.attempts, self._parts.policy, now)


def _owner(request: CreateRequest, asks: Principal) -> str:
    """Who is to own it; only an administrator may name another."""
    if request.owner in ("", asks.subject):
        return asks.subject
    if asks.kind is not Kind.ADMIN:
        raise Denied(f"{asks.subject!r} does not act for {request.owner!r}", code="forbidden")
    return request.owner


def _named(rollout: Rollout, label: str) -> Version:
    """The version of that label, which may be said without its `v`."""
    found = rollout.deployment.named(f"v{label.removeprefix('v')}")
    if found is None:
        there = ", ".join(version.label for version in rollout.deployment.versions)
        raise NotFound(f"{rollout.name} has no version {label}; it has {there}", fix="`bema versions NAME` lists them.")
    return found


def _shared(rollout: Rollout, shares: dict[str, int], now: int) -> Deployment:
    """With other shares, and nothing that rises beside them."""
    deployment = rollout.deployment
    if not deployment.current:
        raise Invalid(f"{rollout.name} has no version that serves", code="conflict")
    if gone := set(shares) - {version.label for version in deployment.versions}:
        raise NotFound(f"{rollout.name} has no version {', '.join(sorted(gone))}")
    return msgspec.structs.replace(deployment.given_up(now), traffic=shares)


def _rising(rollout: Rollout, target: Version, now: int) -> Deployment | None:
    deployment = rollout.deployment
    return deployment.with_candidate(target.label, now) if deployment.named(target.label) else None


def _all_leave(replicas: Sequence[Replica]) -> bool:
    """Whether there are instances, and each is being taken away: who asks now needs the next."""
    return bool(replicas) and all(replica.state is State.DRAINING for replica in replicas)


def _sticking(deployment: Deployment, sticky: str | None) -> Deployment:
    return msgspec.structs.replace(deployment, settings=msgspec.structs.replace(deployment.settings, sticky=sticky))


def _brief(info: DeploymentInfo) -> DeploymentInfo:
    """A page of a thousand failures must stay a message; `read` has what explains each."""
    if info.error is None:
        return info
    return msgspec.structs.replace(info, error=msgspec.structs.replace(info.error, detail="", log=()))

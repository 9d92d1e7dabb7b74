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
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from bema.core.access import Principal, Scope
from bema.core.errors import Conflict, NotFound
from bema.core.naming import check_deployment
from bema.core.redaction import hides
from bema.core.version import VERSION
from bema.deploy.model.bundle import Bundle
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
    describe,
    outward,
)
from bema.deploy.model.env import check_env
from bema.deploy.model.replica import Replica
from bema.deploy.model.restarts import SECOND, due
from bema.deploy.orchestrator import data, logs
from bema.deploy.orchestrator.acting import acting as _acting
from bema.deploy.orchestrator.index import DeploymentIndex
from bema.deploy.orchestrator.keys import KeyOperations
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.orchestrator.reconciler import Reconciler
from bema.deploy.orchestrator.secrets import SecretOperations
from bema.deploy.sources.inspection import inspect
from bema.deploy.sources.source import SourceFactory
from bema.deploy.store.records import StoredReply, UnreadableDeployment
from bema.runtime.tasks import Tasks
from bema.sdk.decorators import endpoint, service

logger = logging.getLogger(__name__)

_BUILDING_RETRY = 2.0
_LARGEST_PAGE = 1000


@service(name="orchestrator", namespace="bema")
class Orchestrator(KeyOperations, SecretOperations):
    """`begin` before the first call, `end` after the last one."""

    _parts: Parts
    _index: DeploymentIndex
    _reconciler: Reconciler
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

    async def end(self) -> None:
        """Stop looking after instances; they run on."""
        await self._renewing.stop()
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._parts.store.close()

    @endpoint
    async def create(self, request: CreateRequest, principal: Principal, key: str = "") -> DeploymentInfo:
        """Check and store a script, owned by who asks; building and starting follow. The same `key` gives the same
        answer."""
        owner = _acting(principal, Scope.WRITE).subject
        if not key:
            return await self._create(request, owner, None)
        owned = f"{owner}/{key}"
        asked = _Asked(request.name, request.code, request.env, owner)
        # deterministic: the same variables in another order are the same request
        digest = hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()
        # a repetition that overtakes the first request must find its answer, not its name taken
        async with self._creating.setdefault(owned, asyncio.Lock()):
            given = self._parts.store.answer(owned, digest)
            if given is not None:
                return msgspec.json.decode(given, type=DeploymentInfo)
            return await self._create(request, owner, StoredReply(owned, digest, b""))

    async def _create(self, request: CreateRequest, owner: str, answer: StoredReply | None) -> DeploymentInfo:
        check_deployment(request.name)
        check_env(request.env, self._parts.limits)
        # before the work: a name that is taken needs none of it
        self._failed(owner, request.name)
        version, bundle = await self._versioned(request)
        # looked at again, by one at a time: inspecting took a while, and others may have deployed meanwhile
        async with self._naming.setdefault((owner, request.name), asyncio.Lock()):
            if (failed := self._failed(owner, request.name)) is not None:
                return await self._update(failed, version, bundle, answer)
            return await self._add(request.name, owner, version, bundle, answer)

    async def _add(
        self, name: str, owner: str, version: Version, bundle: Bundle, answer: StoredReply | None
    ) -> DeploymentInfo:
        now = version.created
        deployment = Deployment(
            id=str(uuid.uuid4()), name=name, owner=owner, versions=(version,), created=now, updated=now
        )
        info = self._info(Rollout(deployment))
        await self._parts.store.create(deployment, bundle, _answered(answer, info))
        self._index.add(deployment)
        self._reconciler.wake(deployment.id)
        return info

    def _failed(self, owner: str, name: str) -> Rollout | None:
        """The deployment of that name where it failed, so that another may take its place; None where there is none."""
        if (id := self._index.named(owner, name)) is None:
            return None
        found = self._parts.store.rollouts().get(id)
        if found is None or self._info(found).state not in FAILURES:
            raise Conflict(f"a deployment named {name!r} exists", id=id)
        return found

    async def _versioned(self, request: CreateRequest) -> tuple[Version, Bundle]:
        """What is asked for as a first version, with its files; or the error that whoever deploys should see."""
        source = SourceFactory.choose("inline").of({"code": request.code}, self._parts.limits)
        bundle = (await source.fetch()).bundle
        found = await inspect(bundle, self._parts.pythons, self._parts.limits)
        version = Version(
            number=1,
            digest=bundle.digest,
            entry=found.entry,
            env=request.env,
            dependencies=found.metadata.dependencies,
            requires_python=found.metadata.requires_python,
            settings=found.metadata.settings,
            created=self._parts.clock.now(),
        )
        return version, bundle

    async def replace(self, id: str, code: str, principal: Principal) -> DeploymentInfo:
        """Put other code in the place of what a deployment runs, under its id, name and environment variables.

        What runs is stopped first. Code that is refused changes nothing.
        """
        old = self._parts.store.rollouts().get(self._owned(id, _acting(principal, Scope.WRITE)).id)
        if old is None:
            raise NotFound(f"there is no deployment {id} that can be read")
        version, bundle = await self._versioned(CreateRequest(old.name, code, old.version.env))
        return await self._update(self._parts.store.rollouts().get(id, old), version, bundle, None)

    async def _update(
        self, old: Rollout, version: Version, bundle: Bundle, answer: StoredReply | None
    ) -> DeploymentInfo:
        new = old.replaced(version, version.created)
        info = self._info(new)
        await self._parts.store.update(new.deployment, bundle, _answered(answer, info))
        self._reconciler.replaced(new.id)
        return info

    @endpoint(idempotent=True)
    async def read(self, id: str, principal: Principal) -> DeploymentInfo:
        return self._info(self._owned(id, _acting(principal, Scope.READ)))

    @endpoint(idempotent=True)
    async def list(self, principal: Principal, after: str = "", count: int = 100) -> DeploymentPage:
        """Deployments, oldest first, without their failures' texts; `after` is the `next` of the page before."""
        asks, count = _acting(principal, Scope.READ), max(1, min(count, _LARGEST_PAGE))
        ids, following = self._index.page(asks, after, count)
        stored = (self._stored(id) for id in ids)
        return DeploymentPage([_brief(self._info(one)) for one in stored if one is not None], following)

    @endpoint
    async def delete(self, id: str, principal: Principal, purge: bool = False) -> None:
        """Forget a deployment; its instance is stopped after the reply. What it wrote is kept, unless with `purge`."""
        stored = self._owned(id, _acting(principal, Scope.WRITE))
        # read before: with the deployment goes what tells whose folder it has
        home = self._parts.store.home(stored.deployment if isinstance(stored, Rollout) else stored)
        await self._parts.store.delete(id, purge=purge, at=self._parts.clock.now())
        # after the commit: until then the name is taken, and no request may find it free
        self._index.remove(stored)
        self._reconciler.leave(id, home)

    @endpoint(idempotent=True)
    async def data(self, principal: Principal, name: str = "", kept: bool = False) -> builtins.list[DataInfo]:
        """What functions wrote: of one name, or of all; with `kept`, only what no deployment has any more."""
        return await data.listed(_acting(principal, Scope.READ), self._parts, name, kept=kept)

    @endpoint
    async def purge(self, id: str, principal: Principal) -> None:
        """Delete what was kept of a deployment that is gone."""
        asks = _acting(principal, Scope.WRITE)
        found = next((each for each in self._parts.store.data() if each.id == id and asks.sees(each.owner)), None)
        if found is None:
            raise NotFound(f"there is no data {id}")
        await self._parts.store.purge(found)
        if not self._reconciler.has(id):  # else it goes with who still writes there
            await data.remove(id, self._parts)

    @endpoint(idempotent=True)
    async def activate(self, id: str, wait: float, principal: Principal) -> Activation:
        """Wait until the deployment is ready or will not be, at most `wait` seconds; start it if it sleeps."""
        asks = _acting(principal, Scope.ACTIVATE)
        deadline = time.monotonic() + wait
        while True:
            found = self._owned(id, asks)
            # taken before the look: a change between look and wait must wake us
            changed = self._reconciler.changed(id)
            told = self._activation(found)
            if told.state in (Outward.IDLE, Outward.BUILD_FAILED):
                self._reconciler.wake(id)
            left = deadline - time.monotonic()
            if told.state not in (Outward.IDLE, Outward.STARTING) or left <= 0:
                return told
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await changed.wait()

    async def settled(self, id: str, principal: Principal) -> DeploymentInfo:
        """Wait until what was begun with a deployment has come out, well or badly."""
        asks = _acting(principal, Scope.READ)
        while True:
            changed = self._reconciler.changed(id)
            info = self._info(self._owned(id, asks))
            if info.state not in (Outward.BUILDING, Outward.STARTING, Outward.IDLE):
                return info
            await changed.wait()

    @endpoint
    async def logs(
        self, id: str, principal: Principal, tail: int = 100, follow: bool = False, since: int = 0
    ) -> AsyncIterator[dict[str, Any]]:
        """The last `tail` lines not older than `since`, then, with `follow`, each new one."""
        self._owned(id, _acting(principal, Scope.READ))
        lines = logs.read(
            self._parts.logs(id),
            tail=tail,
            follow=follow,
            since=since,
            # who follows is told that the deployment went by the end of the log
            alive=lambda: id in self._parts.store.rollouts(),
        )
        async with contextlib.aclosing(lines):
            async for line in lines:
                yield line

    @endpoint(idempotent=True)
    async def status(self, principal: Principal) -> dict[str, Any]:
        _acting(principal, Scope.STATUS)
        store = self._parts.store
        states = Counter(map(self._state, store.rollouts().values()))
        states.update(aside.state for aside in store.unreadable().values())
        return {
            "pid": os.getpid(),
            "version": VERSION,
            "deployments": dict(sorted(states.items())),
            "instances": self._reconciler.instances(),
        }

    def _stored(self, id: str) -> Rollout | UnreadableDeployment | None:
        store = self._parts.store
        return store.rollouts().get(id) or store.unreadable().get(id)

    def _owned(self, id: str, principal: Principal) -> Rollout | UnreadableDeployment:
        # one refusal for both: what is not yours must not be told from what is not there
        found = self._stored(id)
        if found is None or not principal.sees(found.owner):
            raise NotFound(f"there is no deployment {id}")
        return found

    def _info(self, stored: Rollout | UnreadableDeployment) -> DeploymentInfo:
        if isinstance(stored, UnreadableDeployment):
            return stored.info()
        return describe(stored, self._replica(stored), self._parts.policy, self._reconciler.held(stored.id))

    def _replica(self, rollout: Rollout) -> Replica | None:
        # one of an older version may still be ending: what it does says nothing of the newest
        return self._reconciler.instance_of(rollout.id, rollout.version.label)

    def _state(self, rollout: Rollout) -> str:
        return str(outward(rollout.status, self._replica(rollout), self._parts.policy))

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
        now = self._parts.clock.now()
        if state == Outward.BUILD_FAILED:
            return stored.status.build.again - now
        return due(stored.status.attempts, self._parts.policy, now)


class _Asked(msgspec.Struct, frozen=True):
    """What a key stands for."""

    name: str
    code: str
    env: dict[str, str]
    owner: str
    __repr__ = hides("env")


def _answered(answer: StoredReply | None, info: DeploymentInfo) -> StoredReply | None:
    return None if answer is None else msgspec.structs.replace(answer, reply=msgspec.json.encode(info))


def _brief(info: DeploymentInfo) -> DeploymentInfo:
    """A page of a thousand failures must stay a message; `read` has what explains each."""
    if info.error is None:
        return info
    return msgspec.structs.replace(info, error=msgspec.structs.replace(info.error, detail="", log=()))

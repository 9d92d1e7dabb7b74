"""The orchestrator: the service that holds what is deployed and sees to it that it runs.

Laws: every operation is a principal's, and nobody's is refused; who asks sees what is theirs, and "not yours" and "not there"
look the same; a mutation is committed before its reply; whatever takes long goes on after the reply, and `read` tells how
far it came. Warm traffic never comes here.
"""

from __future__ import annotations

import asyncio
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

from bema.core.access import Principal, Scope, permitted
from bema.core.call import CURRENT
from bema.core.errors import Conflict, Denied, Invalid, NotFound
from bema.core.naming import check_deployment
from bema.core.version import VERSION
from bema.deploy.model.deployment import (
    Activation,
    CreateRequest,
    Deployment,
    DeploymentInfo,
    DeploymentPage,
    Outward,
    Version,
    describe,
    outward,
)
from bema.deploy.model.restarts import SECOND, due
from bema.deploy.orchestrator import logs
from bema.deploy.orchestrator.index import DeploymentIndex
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.orchestrator.reconciler import Reconciler
from bema.deploy.sources.inline import check
from bema.deploy.store.deployments import StoredReply
from bema.sdk.decorators import endpoint, service

logger = logging.getLogger(__name__)

_BUILDING_RETRY = 2.0
_LARGEST_PAGE = 1000


@service(name="orchestrator", namespace="bema")
class Orchestrator:
    """`begin` before the first call, `end` after the last one."""

    _parts: Parts
    _index: DeploymentIndex
    _reconciler: Reconciler
    _running: asyncio.Task[None]

    def __init__(self) -> None:
        self._creating: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def begin(self, parts: Parts, failed: Callable[[], None] = lambda: None) -> None:
        """Take charge of what the store says and the launcher runs. `failed` is told when that ends by itself."""
        self._parts = parts
        self._index = DeploymentIndex(parts.store.deployments().values())
        self._reconciler = Reconciler(parts)
        await self._reconciler.adopt()
        self._running = asyncio.create_task(self._reconciler.run(), name="reconciler")

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                logger.error("the reconciler ended", exc_info=task.exception())
                failed()

        self._running.add_done_callback(ended)

    async def end(self) -> None:
        """Stop looking after instances; they run on."""
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
        digest = hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()
        # a repetition that overtakes the first request must find its answer, not its name taken
        async with self._creating.setdefault(owned, asyncio.Lock()):
            given = self._parts.store.answer(owned, digest)
            if given is not None:
                return msgspec.json.decode(given, type=DeploymentInfo)
            return await self._create(request, owner, StoredReply(owned, digest, b""))

    async def _create(self, request: CreateRequest, owner: str, answer: StoredReply | None) -> DeploymentInfo:
        check_deployment(request.name)
        _check_env(request.env)
        if (other := self._index.named(owner, request.name)) is not None:
            raise Conflict(f"a deployment named {request.name!r} exists", id=other)
        checked = await check(request.code, self._parts.pythons, self._parts.limits.script)
        now = self._parts.clock.now()
        version = Version(
            number=1,
            digest=checked.digest,
            entry=checked.entry,
            env=request.env,
            dependencies=checked.metadata.dependencies,
            requires_python=checked.metadata.requires_python,
            created=now,
        )
        deployment = Deployment(
            id=str(uuid.uuid4()), name=request.name, owner=owner, versions=(version,), created=now, updated=now
        )
        info = self._info(deployment)
        if answer is not None:
            answer = msgspec.structs.replace(answer, reply=msgspec.json.encode(info))
        await self._parts.store.create(deployment, checked.code, answer)
        self._index.add(deployment)
        self._reconciler.wake(deployment.id)
        return info

    @endpoint(idempotent=True)
    async def read(self, id: str, principal: Principal) -> DeploymentInfo:
        return self._info(self._owned(id, _acting(principal, Scope.READ)))

    @endpoint(idempotent=True)
    async def list(self, principal: Principal, after: str = "", count: int = 100) -> DeploymentPage:
        """Deployments, oldest first, without their failures' texts; `after` is the `next` of the page before."""
        asks, count = _acting(principal, Scope.READ), max(1, min(count, _LARGEST_PAGE))
        ids, following = self._index.page(asks, after, count)
        stored = self._parts.store.deployments()
        return DeploymentPage([_brief(self._info(stored[id])) for id in ids], following)

    @endpoint
    async def delete(self, id: str, principal: Principal) -> None:
        """Forget a deployment; its instance is stopped after the reply."""
        deployment = self._owned(id, _acting(principal, Scope.WRITE))
        await self._parts.store.delete(id)
        self._index.remove(deployment)
        self._reconciler.leave(id)

    @endpoint(idempotent=True)
    async def activate(self, id: str, wait: float, principal: Principal) -> Activation:
        """Wait until the deployment is ready or will not be, at most `wait` seconds; start it if it sleeps."""
        asks = _acting(principal, Scope.ACTIVATE)
        deadline = time.monotonic() + wait
        while True:
            deployment = self._owned(id, asks)
            # taken before the look: a change between look and wait must wake us
            changed = self._reconciler.changed(id)
            told = self._activation(deployment)
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
            alive=lambda: id in self._parts.store.deployments(),
        )
        async with contextlib.aclosing(lines):
            async for line in lines:
                yield line

    @endpoint(idempotent=True)
    async def status(self, principal: Principal) -> dict[str, Any]:
        _acting(principal, Scope.STATUS)
        states = Counter(self._state(d) for d in self._parts.store.deployments().values())
        return {
            "pid": os.getpid(),
            "version": VERSION,
            "deployments": dict(sorted(states.items())),
            "instances": self._reconciler.instances(),
        }

    def _owned(self, id: str, principal: Principal) -> Deployment:
        found = self._parts.store.deployments().get(id)
        if found is None or not principal.sees(found.owner):
            raise NotFound(f"there is no deployment {id}")
        return found

    def _info(self, deployment: Deployment) -> DeploymentInfo:
        return describe(deployment, self._reconciler.instance_of(deployment.id), self._parts.policy)

    def _state(self, deployment: Deployment) -> str:
        return str(outward(deployment, self._reconciler.instance_of(deployment.id), self._parts.policy))

    def _activation(self, deployment: Deployment) -> Activation:
        info = self._info(deployment)
        match info.state:
            case Outward.BUILDING:
                return Activation(info.state, _BUILDING_RETRY, None)
            case Outward.BUILD_FAILED:
                wait = (deployment.version.build.again - self._parts.clock.now()) / SECOND
                return Activation(info.state, max(1.0, wait), info.error)
            case Outward.START_FAILED | Outward.CRASH_LOOP:
                wait = due(deployment.attempts, self._parts.policy, self._parts.clock.now()) / SECOND
                return Activation(info.state, max(1.0, wait), info.error)
        return Activation(info.state, None, info.error)


class _Asked(msgspec.Struct, frozen=True):
    """What a key stands for."""

    name: str
    code: str
    env: dict[str, str]
    owner: str


def _acting(principal: Principal | None, scope: Scope) -> Principal:
    """Who asks, where they may.

    A call that came on a connection is believed as far as the credential of that connection reaches: what the body says can
    only be who the credential may speak for.
    """
    asks, call = permitted(principal, scope), CURRENT.get()
    if call is not None and (call.principal is None or not call.principal.speaks_for(asks)):
        raise Denied(f"the credential of this connection does not speak for {asks.subject!r}")
    return asks


def _brief(info: DeploymentInfo) -> DeploymentInfo:
    """A page of a thousand failures must stay a message; `read` has what explains each."""
    if info.error is None:
        return info
    return msgspec.structs.replace(info, error=msgspec.structs.replace(info.error, detail="", log=()))


def _check_env(env: dict[str, str]) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise Invalid(f"env {name!r} cannot be an environment variable", name=name)

"""The deployment store: what must outlive everything, as mutations of a state engine.

Laws: a change is durable before its caller hears of it, and only then in the picture that readers see; the picture is made
of what the engine says it changed, and of nothing else; an idempotency key gives the same answer again; what a function
wrote belongs to its owner and name, and outlives the deployment unless somebody purges it. What is stored and cannot be
read is set aside: it is shown, it can be deleted, and it ends nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import unquote

from bema.core.errors import Conflict, NotFound, Refused
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.deployment import Deployment, Rollout, VersionStatus
from bema.deploy.store.picture import Picture
from bema.deploy.store.records import (
    STATUS,
    DataFolder,
    StoredReply,
    UnreadableDeployment,
    data_key,
    deployment_key,
    fact_key,
    name_key,
    put,
    reply_key,
    status_key,
)
from bema.state.engine import Missed, Mutation, RevisionConflict, StateChange, StateEngine

logger = logging.getLogger(__name__)

T = TypeVar("T")
ANSWERS_KEPT = 1000
_PAGE = 500

FILE = "store.sqlite"
"""What is deployed lies in the state of this name."""


class Store:
    """Reads come from a picture in memory and cost nothing; writes return when they are durable.

    An engine that holds something already is read by `open`. Writes raise the engine's `Refused`.
    """

    def __init__(self, engine: StateEngine) -> None:
        self.failed: Callable[[], None] = lambda: None
        """Called when the engine writes nothing more, which only opening it again can mend."""
        self._engine = engine
        self._closed = False
        self._picture = Picture()
        self._watch = engine.watch(engine.revision)
        self._creating: Counter[str] = Counter()  # digests of bundles that are stored and not yet used

    @classmethod
    async def open(cls, engine: StateEngine) -> Store:
        """The store on `engine`, which it closes. Bundles that nobody uses are dropped: a creation was cut short.

        While there is a record that cannot be read, all are kept: whose bundle it names is not known.
        """
        store = cls(engine)
        try:
            await store._read()
            if not store.unreadable():
                await engine.drop_blobs(set(await engine.blobs()) - store._used())
        except BaseException:
            await engine.close()
            raise
        return store

    # reading

    def deployments(self) -> Mapping[str, Deployment]:
        """Desired state by id, current as of the last write that returned."""
        return MappingProxyType({id: rollout.deployment for id, rollout in self.rollouts().items()})

    def rollouts(self) -> Mapping[str, Rollout]:
        """Each deployment with the status of its versions, by id."""
        self._catch_up()
        return MappingProxyType(self._picture.rollouts)

    def unreadable(self) -> Mapping[str, UnreadableDeployment]:
        """What was set aside, by id."""
        self._catch_up()
        return MappingProxyType(self._picture.unreadable)

    def answer(self, key: str, request: str) -> bytes | None:
        """The reply given before; `Conflict` (key_reused) if that was to another request."""
        self._catch_up()
        given = self._picture.replies.get(reply_key(key))
        if given is not None and given.request != request:
            raise Conflict("the idempotency key was used for another request", code="key_reused")
        return given.reply if given is not None else None

    def fact(self, name: str) -> str | None:
        """A small thing worth remembering: that an example was deployed once, a port that was chosen."""
        self._catch_up()
        return self._picture.facts.get(fact_key(name))

    def data(self) -> Sequence[DataFolder]:
        """Every folder of data there is a record of, whether a deployment has it or not."""
        self._catch_up()
        return tuple(self._picture.data.values())

    def data_of(self, owner: str, name: str) -> DataFolder | None:
        """The folder that a deployment of that name has or will find; None where nothing is known of one."""
        self._catch_up()
        return self._picture.data.get(data_key(owner, name))

    def home(self, deployment: Deployment | UnreadableDeployment) -> str:
        """The id of its folder; deployments from before these records have one of their own id."""
        found = self.data_of(deployment.owner, deployment.name)
        return deployment.id if found is None else found.id

    def in_use(self, data: DataFolder) -> str | None:
        """The deployment that has the folder; None where it is kept for the next one of that name."""
        self._catch_up()
        return self._picture.named(name_key(data.owner, data.name))

    @property
    def knows_all_data(self) -> bool:
        """Whether a folder that no record names is nobody's."""
        self._catch_up()
        return not self._picture.unreadable_data

    def facts(self, prefix: str) -> dict[str, str]:
        """The facts whose names begin so, each by the rest of its name."""
        self._catch_up()
        first = fact_key(prefix)
        facts = self._picture.facts.items()
        return {unquote(key.removeprefix(first)): value for key, value in facts if key.startswith(first)}

    async def bundle(self, digest: str) -> Bundle:
        """The files of a version; `NotFound` for one that nobody uses."""
        return Bundle.decode(await self._engine.blob(digest))

    # writing

    async def create(self, deployment: Deployment, bundle: Bundle, answer: StoredReply | None = None) -> None:
        """Add a deployment; `Conflict` (name_taken) with the `id` of the owner's other one of that name."""
        await self._whole(self._create(deployment, bundle, answer))

    async def _create(self, deployment: Deployment, bundle: Bundle, answer: StoredReply | None) -> None:
        name = name_key(deployment.owner, deployment.name)
        async with self._placed(bundle):
            while True:
                try:
                    await self._apply(
                        [
                            Mutation(name, deployment.id.encode(), 0),
                            put(deployment_key(deployment.id), deployment, 0),
                            *(put(status_key(deployment.id, v.label), VersionStatus(), 0) for v in deployment.versions),
                            self._taken(deployment),
                            *self._answered(answer),
                        ]
                    )
                except RevisionConflict as error:
                    if error.key == data_key(deployment.owner, deployment.name):
                        await self._refresh()  # what was kept for it was purged meanwhile
                        continue
                    other = await self._engine.get(name)
                    id = other.value.decode() if other is not None else ""  # it may have gone meanwhile
                    raise Conflict(f"a deployment named {deployment.name!r} exists", id=id) from error
                return

    @contextlib.asynccontextmanager
    async def _placed(self, bundle: Bundle) -> AsyncIterator[None]:
        """The bundle is stored, and counts as used until its version is."""
        self._creating[bundle.digest] += 1
        try:
            await self._engine.put_blob(bundle.encoded)
            yield
        finally:
            self._creating -= Counter((bundle.digest,))

    def _taken(self, deployment: Deployment) -> Mutation:
        """The data of that owner and name is the deployment's; where there is none, a folder of its own id will be."""
        key = data_key(deployment.owner, deployment.name)
        # with the revision that was read: a purge meanwhile deletes the folder it names
        mine = DataFolder(self.home(deployment), deployment.name, deployment.owner)
        return put(key, mine, self._picture.revisions.get(key, 0))

    async def update(
        self,
        deployment: Deployment,
        bundle: Bundle,
        answer: StoredReply | None = None,
        begins: VersionStatus | None = None,
    ) -> None:
        """Replace what is desired by what has another newest version, of `bundle`; `NotFound` if it was deleted.

        Versions that it has no more are forgotten, with their status and code. A new one `begins` with that status, or an empty one.
        """
        await self._whole(self._update(deployment, bundle, answer, begins))

    async def _update(
        self, deployment: Deployment, bundle: Bundle, answer: StoredReply | None, begins: VersionStatus | None
    ) -> None:
        before, id = self._used(), deployment.id
        async with self._placed(bundle):
            await self._replace(deployment_key(id), deployment, id, self._answered(answer), begins)
        await self._drop(before)

    def _answered(self, answer: StoredReply | None) -> list[Mutation]:
        if answer is None:
            return []
        kept = self._picture.replies
        # in the order they were given: who repeats a request does so soon
        old = list(kept)[: max(0, len(kept) + 1 - ANSWERS_KEPT)]
        return [put(reply_key(answer.key), answer), *(Mutation(key, None) for key in old)]

    async def save(self, deployment: Deployment) -> None:
        """Replace what is desired; `NotFound` if it was deleted meanwhile. A new version begins with a new status."""
        await self._whole(self._replace(deployment_key(deployment.id), deployment, deployment.id))

    async def record(self, id: str, label: str, status: VersionStatus) -> None:
        """Replace the status of a version; `NotFound` if its deployment was deleted meanwhile."""
        await self._whole(self._replace(status_key(id, label), status, id))

    async def _replace(
        self,
        key: str,
        record: Deployment | VersionStatus,
        id: str,
        more: Sequence[Mutation] = (),
        begins: VersionStatus | None = None,
    ) -> None:
        while True:
            known = self._picture.revisions.get(key, 0)
            if id not in self.rollouts() or not known:
                raise NotFound(f"there is no deployment {id}")
            # made anew in each turn: who was faster may have added a version
            fresh = self._fresh(record, begins or VersionStatus()) if isinstance(record, Deployment) else []
            try:
                await self._apply([put(key, record, known), *fresh, *more])
            except RevisionConflict:
                # somebody was faster: the last one to ask wins, as long as there is something to replace
                await self._refresh()
            else:
                return

    def _fresh(self, deployment: Deployment, begins: VersionStatus) -> list[Mutation]:
        keys = {status_key(deployment.id, version.label) for version in deployment.versions}
        old = [key for key in self._picture.keys_of(deployment.id) if key.startswith(STATUS) and key not in keys]
        fresh = [put(key, begins, 0) for key in sorted(keys) if key not in self._picture.revisions]
        return [*fresh, *(Mutation(key, None) for key in old)]

    async def delete(self, id: str, *, purge: bool = False, at: int = 0) -> None:
        """Take a deployment away, with the bundles that no other uses; `NotFound` if it is not there.

        What it wrote is kept for the next of its owner and name, as of the instant `at`; or not, with `purge`.
        """
        await self._whole(self._delete(id, purge, at))

    async def _delete(self, id: str, purge: bool, at: int) -> None:
        keys = self._picture.keys_of(id)
        if deployment_key(id) not in keys:
            raise NotFound(f"there is no deployment {id}")
        before = self._used()
        await self._apply([*(Mutation(key, None) for key in keys), self._left(id, purge, at)])
        await self._drop(before)

    def _left(self, id: str, purge: bool, at: int) -> Mutation:
        gone = self.rollouts().get(id) or self.unreadable()[id]
        key = data_key(gone.owner, gone.name)
        home = self.home(gone.deployment if isinstance(gone, Rollout) else gone)
        # without a revision: while the name is taken nobody else changes the record
        return Mutation(key, None) if purge else put(key, DataFolder(home, gone.name, gone.owner, at))

    async def _drop(self, before: set[str]) -> None:
        """Let bundles go that nobody uses any more. What fails here costs space until the store is opened again."""
        try:
            await self._engine.drop_blobs(before - self._used())
        except Refused as error:
            logger.warning("code that nobody uses stays: %s", error.message)

    async def purge(self, data: DataFolder) -> None:
        """Forget a folder of data; `Conflict` where a deployment has it, `NotFound` where it is gone."""
        await self._whole(self._purge(data))

    async def _purge(self, data: DataFolder) -> None:
        key = data_key(data.owner, data.name)
        if self.data_of(data.owner, data.name) is None:
            raise NotFound(f"no data of {data.name} is kept")
        try:
            # the name must be free in the same instant: who takes it takes the data, too
            free = Mutation(name_key(data.owner, data.name), None, 0)
            await self._apply([free, Mutation(key, None, self._picture.revisions[key])])
        except RevisionConflict as error:
            raise Conflict(f"{data.name} is deployed and has it", code="conflict") from error

    async def remember(self, name: str, value: str | None) -> None:
        """Replace a fact; forget it, where `value` is None."""
        await self._whole(self._apply([Mutation(fact_key(name), None if value is None else value.encode())]))

    async def close(self) -> None:
        """Let go of the engine; nothing that returned is lost."""
        self._closed = True
        await self._engine.close()

    # the picture

    async def _apply(self, mutations: Sequence[Mutation]) -> None:
        await self._engine.apply(mutations)
        await self._refresh()

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """A caller that is cancelled must not leave the picture behind the disk, nor half of what it began."""
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # nobody waits for it any more, which is no reason to log it
            raise
        except Refused as error:
            if error.code == "state_failed" and not self._closed:
                self.failed()
            raise

    async def _refresh(self) -> None:
        if not self._catch_up():
            await self._read()

    def _catch_up(self) -> bool:
        """Whether all that happened is shown. Where some was missed, the next write reads everything again."""
        try:
            changes = self._watch.take()
        except Missed:
            return False
        for change in changes:
            self._picture.show(change)
        return True

    async def _read(self) -> None:
        """Read everything: at the start, and after changes were missed."""
        # watched from before the scan: what changes meanwhile is seen twice, and not never
        self._watch.close()
        self._watch = self._engine.watch(self._engine.revision)
        picture, after = Picture(), ""
        while page := await self._engine.scan("", after, _PAGE):
            # what is older is shown first: answers are forgotten in the order they were given
            for entry in page:
                picture.show(StateChange(entry.revision, entry.key, entry.value))
            after = page[-1].key
        picture.settle()
        self._picture = picture
        self._catch_up()

    def _used(self) -> set[str]:
        """The digests of bundles that are in use, or about to be."""
        used = {version.digest for rollout in self.rollouts().values() for version in rollout.deployment.versions}
        return used | set(self._creating)

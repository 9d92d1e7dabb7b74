"""The laws of the deployment store, on each engine of ours: what returned is kept, and readers never see what was not written."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from bema.core.errors import Conflict, NotFound
from bema.core.limits import DEFAULTS
from bema.core.settings import PartSettings
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.deployment import Build, Deployment, Rollout, ScriptEntry, Version, VersionStatus
from bema.deploy.store.deployments import Store
from bema.deploy.store.records import StoredReply
from bema.state.engine import StateFactory

Make = Callable[[], Awaitable[Store]]
CODE, OTHER = Bundle.of_script(b"code"), Bundle.of_script(b"other")


def law(*engines: str) -> Callable[[Callable[[Make], Awaitable[None]]], Callable[..., None]]:
    """The law as a test on each of the engines."""

    def mark(body: Callable[[Make], Awaitable[None]]) -> Callable[..., None]:
        @pytest.mark.parametrize("engine", engines)
        def test(engine: str, tmp_path: Path) -> None:
            made: list[Store] = []

            async def make() -> Store:
                made.append(
                    await Store.open(
                        await StateFactory.choose(engine).open(PartSettings({}, DEFAULTS, tmp_path), "store.sqlite")
                    )
                )
                return made[-1]

            async def story() -> None:
                await body(make)
                for store in made:
                    await store.close()

            asyncio.run(story())

        test.__doc__ = body.__doc__
        return test

    return mark


def deployment(name: str = "api", owner: str = "me", bundle: Bundle = CODE) -> Deployment:
    """A deployment nobody else has."""
    version = Version(number=1, digest=bundle.digest, entry=ScriptEntry("app", "app"), env={"A": "1"})
    return Deployment(id=str(uuid.uuid4()), name=name, owner=owner, versions=(version,), created=1, updated=2)


@law("memory", "sqlite")
async def test_created_is_shown(make: Make) -> None:
    """A deployment that was created is shown whole, with its code."""
    store, one = await make(), deployment()
    await store.create(one, CODE)
    assert dict(store.deployments()) == {one.id: one}
    assert await store.bundle(one.version.digest) == CODE


@law("memory", "sqlite")
async def test_names_are_taken_by_owner(make: Make) -> None:
    """A name is taken once per owner; the Conflict carries the other's id, and nothing is stored."""
    store, one = await make(), deployment()
    await store.create(one, CODE)
    await store.create(deployment(owner="you"), CODE)
    try:
        await store.create(deployment(), CODE)
    except Conflict as conflict:
        assert conflict.details["id"] == one.id
        assert len(store.deployments()) == 2
    else:
        raise AssertionError("a taken name was accepted")


@law("memory", "sqlite")
async def test_saved_replaces(make: Make) -> None:
    """Saving replaces a deployment."""
    store, one = await make(), deployment()
    await store.create(one, CODE)
    wanted = msgspec.structs.replace(one, candidate="v1", updated=9)
    await store.save(wanted)
    assert store.deployments()[one.id] == wanted


@law("memory", "sqlite")
async def test_status_is_recorded_by_itself(make: Make) -> None:
    """What became of a version is recorded without the deployment; a new version has a status of its own."""
    store, one = await make(), deployment()
    await store.create(one, CODE)
    assert store.rollouts()[one.id] == Rollout(one, {"v1": VersionStatus()})
    built = VersionStatus().built(Build(state="done", key="k"), at=9)
    await store.record(one.id, "v1", built)
    assert store.rollouts()[one.id] == Rollout(one, {"v1": built})
    two = msgspec.structs.replace(one, versions=(*one.versions, msgspec.structs.replace(one.version, number=2)))
    await store.save(two)
    assert store.rollouts()[one.id] == Rollout(two, {"v1": built, "v2": VersionStatus()})


@law("memory", "sqlite")
async def test_deleted_is_gone(make: Make) -> None:
    """What was deleted cannot be read, saved or deleted again; its name is free."""
    store, one = await make(), deployment()
    await store.create(one, CODE)
    await store.delete(one.id)
    assert one.id not in store.deployments()
    for again in (
        store.save(one),
        store.record(one.id, "v1", VersionStatus()),
        store.delete(one.id),
        store.bundle(one.version.digest),
    ):
        try:
            await again
        except NotFound:
            continue
        raise AssertionError("it is still there")
    await store.create(deployment(), CODE)


@law("memory", "sqlite")
async def test_shared_code_stays(make: Make) -> None:
    """Code that another deployment uses outlives the one that was deleted."""
    store, one, other = await make(), deployment("one"), deployment("other")
    await store.create(one, CODE)
    await store.create(other, CODE)
    await store.delete(one.id)
    assert await store.bundle(other.version.digest) == CODE


@law("memory", "sqlite")
async def test_keys_give_the_same_answer(make: Make) -> None:
    """An idempotency key gives the reply of its request, and refuses another request."""
    store = await make()
    await store.create(deployment(), CODE, StoredReply("key", "request", b"reply"))
    assert store.answer("key", "request") == b"reply"
    assert store.answer("new", "request") is None
    try:
        store.answer("key", "another")
    except Conflict as conflict:
        assert conflict.code == "key_reused"
    else:
        raise AssertionError("a key was used for two requests")


@law("memory", "sqlite")
async def test_refused_leaves_no_answer(make: Make) -> None:
    """A creation that was refused leaves no answer under its key."""
    store = await make()
    await store.create(deployment(), CODE)
    try:
        await store.create(deployment(), CODE, StoredReply("key", "request", b"reply"))
    except Conflict:
        assert store.answer("key", "request") is None


@law("memory", "sqlite")
async def test_facts_are_replaced(make: Make) -> None:
    """A fact is what was remembered last."""
    store = await make()
    assert store.fact("port") is None
    await store.remember("port", "1")
    await store.remember("port", "2")
    assert store.fact("port") == "2"


@law("sqlite")
async def test_all_of_it_is_durable(make: Make) -> None:
    """What returned before the store was closed is there when it is opened again."""
    store, one, gone = await make(), deployment("one"), deployment("gone", bundle=OTHER)
    await store.create(one, CODE, StoredReply("key", "request", b"reply"))
    await store.create(gone, OTHER)
    await store.record(one.id, "v1", VersionStatus(restarts=3))
    await store.delete(gone.id)
    await store.remember("port", "1")
    await store.close()
    again = await make()
    assert dict(again.rollouts()) == {one.id: Rollout(one, {"v1": VersionStatus(restarts=3)})}
    assert await again.bundle(one.version.digest) == CODE
    assert (again.answer("key", "request"), again.fact("port")) == (b"reply", "1")

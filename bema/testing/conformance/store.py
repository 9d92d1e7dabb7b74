"""The laws of the deployment store: what returned is kept, and readers never see what was not written.

`durable`: a part from `make`, after the earlier one was closed, holds what that one held.
"""

from __future__ import annotations

import hashlib
import uuid

import msgspec

from bema.core.errors import Conflict, NotFound
from bema.deploy.model.deployment import Build, Deployment, ScriptEntry, Version
from bema.deploy.store.deployments import StoredReply
from bema.parts.opening import unopenable
from bema.testing.conformance.frame import Make, Suite

SUITE = Suite("store")


def deployment(name: str = "api", owner: str = "me", code: bytes = b"code") -> Deployment:
    """A deployment nobody else has."""
    digest = hashlib.sha256(code).hexdigest()
    version = Version(number=1, digest=digest, entry=ScriptEntry("app", "app"), env={"A": "1"})
    return Deployment(id=str(uuid.uuid4()), name=name, owner=owner, versions=(version,), created=1, updated=2)


@SUITE.law()
async def created_is_shown(make: Make) -> None:
    """A deployment that was created is shown whole, with its code."""
    store, one = await make(), deployment()
    await store.create(one, b"code")
    assert dict(store.deployments()) == {one.id: one}
    assert await store.code(one.version.digest) == b"code"


@SUITE.law()
async def names_are_taken_by_owner(make: Make) -> None:
    """A name is taken once per owner; the Conflict carries the other's id, and nothing is stored."""
    store, one = await make(), deployment()
    await store.create(one, b"code")
    await store.create(deployment(owner="you"), b"code")
    try:
        await store.create(deployment(), b"code")
    except Conflict as conflict:
        assert conflict.details["id"] == one.id
        assert len(store.deployments()) == 2
    else:
        raise AssertionError("a taken name was accepted")


@SUITE.law()
async def saved_replaces(make: Make) -> None:
    """Saving replaces a deployment."""
    store, one = await make(), deployment()
    await store.create(one, b"code")
    built = one.built(Build(state="done", key="k"), at=9)
    await store.save(built)
    assert store.deployments()[one.id] == built


@SUITE.law()
async def deleted_is_gone(make: Make) -> None:
    """What was deleted cannot be read, saved or deleted again; its name is free."""
    store, one = await make(), deployment()
    await store.create(one, b"code")
    await store.delete(one.id)
    assert one.id not in store.deployments()
    for again in (store.save(one), store.delete(one.id), store.code(one.version.digest)):
        try:
            await again
        except NotFound:
            continue
        raise AssertionError("it is still there")
    await store.create(deployment(), b"code")


@SUITE.law()
async def shared_code_stays(make: Make) -> None:
    """Code that another deployment uses outlives the one that was deleted."""
    store, one, other = await make(), deployment("one"), deployment("other")
    await store.create(one, b"code")
    await store.create(other, b"code")
    await store.delete(one.id)
    assert await store.code(other.version.digest) == b"code"


@SUITE.law()
async def keys_give_the_same_answer(make: Make) -> None:
    """An idempotency key gives the reply of its request, and refuses another request."""
    store = await make()
    await store.create(deployment(), b"code", StoredReply("key", "request", b"reply"))
    assert store.answer("key", "request") == b"reply"
    assert store.answer("new", "request") is None
    try:
        store.answer("key", "another")
    except Conflict as conflict:
        assert conflict.code == "key_reused"
    else:
        raise AssertionError("a key was used for two requests")


@SUITE.law()
async def refused_leaves_no_answer(make: Make) -> None:
    """A creation that was refused leaves no answer under its key."""
    store = await make()
    await store.create(deployment(), b"code")
    try:
        await store.create(deployment(), b"code", StoredReply("key", "request", b"reply"))
    except Conflict:
        assert store.answer("key", "request") is None


@SUITE.law()
async def facts_are_replaced(make: Make) -> None:
    """A fact is what was remembered last."""
    store = await make()
    assert store.fact("port") is None
    await store.remember("port", "1")
    await store.remember("port", "2")
    assert store.fact("port") == "2"


@SUITE.law("durable")
async def all_of_it_is_durable(make: Make) -> None:
    """What returned before the store was closed is there when it is opened again."""
    store, one, gone = await make(), deployment("one"), deployment("gone")
    await store.create(one, b"code", StoredReply("key", "request", b"reply"))
    await store.create(gone, b"other")
    await store.save(msgspec.structs.replace(one, restarts=3))
    await store.delete(gone.id)
    await store.remember("port", "1")
    await store.close()
    again = await make()
    assert dict(again.deployments()) == {one.id: msgspec.structs.replace(one, restarts=3)}
    assert await again.code(one.version.digest) == b"code"
    assert (again.answer("key", "request"), again.fact("port")) == (b"reply", "1")


@SUITE.law()
async def it_is_opened_with_settings(make: Make) -> None:
    """Its class has `open(settings)`, or is made without arguments: else no program could take it by its name."""
    made = await make()
    assert unopenable(type(made), "waiting") == ""
    await made.close()

"""The deployment store, and its twin in memory: one set of promises."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bema.core.errors import Conflict, NotFound
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.deployment import Build, Deployment, Rollout, ScriptEntry, Version, VersionStatus
from bema.deploy.model.restarts import Attempt
from bema.deploy.store import deployments as store_module
from bema.deploy.store.deployments import Store
from bema.deploy.store.records import StoredReply
from bema.state.engine import Mutation, StateEngine
from bema.state.memory import MemoryEngine
from bema.state.sqlite import SqliteEngine

CODE = Bundle.of_script(b"print('hello')\n")


def deployment(id: str = "one", name: str = "hello", owner: str = "local", digest: str = CODE.digest) -> Deployment:
    version = Version(number=1, digest=digest, entry=ScriptEntry("app", "app"), env={"K": "V"}, created=1)
    return Deployment(id=id, name=name, owner=owner, versions=(version,), created=1, updated=1)


@contextlib.asynccontextmanager
async def opened(kind: str, path: Path) -> AsyncIterator[Store]:
    engine: StateEngine = await SqliteEngine.at(path / "store.sqlite") if kind == "sqlite" else MemoryEngine()
    store = await Store.open(engine)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(params=["sqlite", "memory"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_is_stored_is_seen(kind: str, tmp_path: Path):
    async def story() -> None:
        async with opened(kind, tmp_path) as store:
            await store.create(deployment(), CODE)
            assert store.deployments()["one"] == deployment()
            assert await store.bundle(CODE.digest) == CODE
            await store.record("one", "v1", VersionStatus().built(Build(state="done", key="k"), 2))
            assert store.rollouts()["one"].status.build.key == "k"
            await store.delete("one")
            assert not store.deployments()

    asyncio.run(story())


def test_a_name_belongs_to_its_owner(kind: str, tmp_path: Path):
    async def story() -> None:
        async with opened(kind, tmp_path) as store:
            await store.create(deployment(), CODE)
            with pytest.raises(Conflict) as caught:
                await store.create(deployment("two"), CODE)
            assert (caught.value.code, caught.value.details["id"]) == ("name_taken", "one")
            await store.create(deployment("two", owner="ada"), CODE)
            await store.delete("one")
            await store.create(deployment("three"), CODE)

    asyncio.run(story())


def test_what_is_gone_cannot_be_saved_or_deleted(kind: str, tmp_path: Path):
    async def story() -> None:
        async with opened(kind, tmp_path) as store:
            for change in (store.save(deployment()), store.record("one", "v1", VersionStatus()), store.delete("one")):
                with pytest.raises(NotFound):
                    await change

    asyncio.run(story())


def test_an_idempotency_key_gives_the_same_answer_to_the_same_request_only(kind: str, tmp_path: Path):
    async def story() -> None:
        async with opened(kind, tmp_path) as store:
            assert store.answer("key", "body") is None
            await store.create(deployment(), CODE, StoredReply("key", "body", b"reply"))
            assert store.answer("key", "body") == b"reply"
            with pytest.raises(Conflict) as caught:
                store.answer("key", "another body")
            assert caught.value.code == "key_reused"

    asyncio.run(story())


def test_code_lives_as_long_as_a_deployment_of_it(kind: str, tmp_path: Path):
    async def story() -> None:
        async with opened(kind, tmp_path) as store:
            await store.create(deployment("one", "a"), CODE)
            await store.create(deployment("two", "b"), CODE)
            await store.delete("one")
            assert await store.bundle(CODE.digest) == CODE
            await store.delete("two")
            with pytest.raises(NotFound):
                await store.bundle(CODE.digest)

    asyncio.run(story())


def test_everything_survives_a_restart(tmp_path: Path):
    async def story() -> None:
        full = VersionStatus(attempts=(Attempt(instance=2**62, at=5, log=("line",)),))
        async with opened("sqlite", tmp_path) as store:
            await store.create(deployment(), CODE, StoredReply("key", "body", b"reply"))
            await store.record("one", "v1", full)
            await store.remember("seed.hello", "one")
        async with opened("sqlite", tmp_path) as again:
            assert dict(again.rollouts()) == {"one": Rollout(deployment(), {"v1": full})}
            assert again.answer("key", "body") == b"reply"
            assert again.fact("seed.hello") == "one"
            assert again.fact("other") is None
            assert await again.bundle(CODE.digest) == CODE

    asyncio.run(story())


def test_a_reply_means_it_is_on_disk(tmp_path: Path):
    async def story() -> None:
        async with opened("sqlite", tmp_path) as store:
            await store.create(deployment(), CODE)
            with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite")) as other:
                keys = other.execute("SELECT key FROM entries ORDER BY key").fetchall()
                assert keys == [("data/local/hello",), ("deployments/one",), ("names/local/hello",), ("status/one/v1",)]
                assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    asyncio.run(story())


def test_a_cancelled_caller_leaves_disk_and_picture_equal(tmp_path: Path):
    async def story() -> None:
        async with opened("sqlite", tmp_path) as store:
            task = asyncio.create_task(store.create(deployment(), CODE))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite")) as other:
                keys = {key for (key,) in other.execute("SELECT key FROM entries")}
            assert {f"deployments/{id}" for id in store.deployments()} == {
                k for k in keys if k.startswith("deployments/")
            }

    asyncio.run(story())


def test_a_version_begins_with_the_status_it_is_given_and_no_other_does(kind: str, tmp_path: Path):
    async def story() -> None:
        async with opened(kind, tmp_path) as store:
            await store.create(deployment(), CODE)
            known = VersionStatus(build=Build(state="done", lock="old"))
            await store.record("one", "v1", known)
            old = store.rollouts()["one"]
            given = VersionStatus(build=Build(lock="new"))
            await store.update(old.replaced(old.version, 2).deployment, CODE, begins=given)
            assert store.rollouts()["one"].statuses == {"v2": given}, "what was never good is not kept"
            good = store.rollouts()["one"].after(given.proven(3))
            await store.record("one", "v2", good.status)
            await store.update(good.replaced(good.version, 4).deployment, CODE)
            assert store.rollouts()["one"].statuses == {"v2": good.status, "v3": VersionStatus()}

    asyncio.run(story())


def test_answers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_module, "ANSWERS_KEPT", 2)

    async def story() -> None:
        async with opened("sqlite", tmp_path) as store:
            for n in range(5):
                await store.create(deployment(f"id{n}", f"name{n}"), CODE, StoredReply(f"key{n}", "body", b"r"))
        async with opened("sqlite", tmp_path) as again:
            assert [n for n in range(5) if again.answer(f"key{n}", "body")] == [3, 4]

    asyncio.run(story())


def test_what_cannot_be_read_is_set_aside_and_ends_nobody(kind: str, tmp_path: Path):
    async def story() -> None:
        async with opened(kind, tmp_path) as store:
            for id in ("one", "two", "three"):
                await store.create(deployment(id, id), CODE)
            await store._apply(
                [
                    Mutation("deployments/two", b'{"id": "two", "name": 7}'),
                    Mutation("status/three/v1", b"\xff"),
                    Mutation("replies/x", b"[]"),
                    Mutation("deployments/lonely", b"{"),
                ]
            )
            assert set(store.rollouts()) == {"one", "three"}
            aside = store.unreadable()
            assert {id: (one.owner, one.name) for id, one in aside.items()} == {
                "two": ("local", "two"),
                "lonely": ("local", "lonely"),
            }
            assert aside["two"].fault.code == "record_unreadable"
            assert "name" in aside["two"].fault.message
            build = store.rollouts()["three"].status.build
            assert (build.state, build.fault and build.fault.code) == ("failed", "record_unreadable")
            with pytest.raises(Conflict):
                await store.create(deployment("four", "two"), CODE)
            for id in list(aside):
                await store.delete(id)
            assert not store.unreadable()
            await store.create(deployment("four", "two"), CODE)

    asyncio.run(story())


def test_a_creation_that_was_cut_short_leaves_no_content(tmp_path: Path):
    async def story() -> None:
        async with opened("sqlite", tmp_path) as store:
            await store._engine.put_blob(b"left over")
            await store.create(deployment(), CODE)
        async with opened("sqlite", tmp_path) as again:
            assert await again._engine.blobs() == [CODE.digest]

    asyncio.run(story())


def test_the_content_of_a_record_that_cannot_be_read_is_kept(tmp_path: Path):
    async def story() -> None:
        async with opened("sqlite", tmp_path) as store:
            await store.create(deployment(), CODE)
            await store._apply([Mutation("deployments/one", b"{")])
        async with opened("sqlite", tmp_path) as again:
            assert await again._engine.blobs() == [CODE.digest]
            await again.delete("one")
        async with opened("sqlite", tmp_path) as last:
            assert await last._engine.blobs() == []

    asyncio.run(story())


def test_a_bundle_that_is_being_created_is_not_dropped_with_its_last_user(kind: str, tmp_path: Path):
    async def story() -> None:
        async with opened(kind, tmp_path) as store:
            await store.create(deployment("one", "a"), CODE)
            await asyncio.gather(store.create(deployment("two", "b"), CODE), store.delete("one"))
            assert await store.bundle(CODE.digest) == CODE

    asyncio.run(story())


def test_a_start_writes_the_status_of_its_version_and_nothing_else(tmp_path: Path):
    async def story() -> None:
        async with opened("sqlite", tmp_path) as store:
            await store.create(deployment(), CODE)
            before = {entry.key: entry.revision for entry in await store._engine.scan()}
            await store.record("one", "v1", VersionStatus(restarts=1))
            after = {entry.key: entry.revision for entry in await store._engine.scan()}
            assert {key for key in after if after[key] != before.get(key)} == {"status/one/v1"}

    asyncio.run(story())

"""The deployment store, and its twin in memory: one set of promises."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from bema.core.errors import Conflict, NotFound, Refused
from bema.deploy.model.deployment import Build, Deployment, ScriptEntry, Version
from bema.deploy.model.restarts import Attempt
from bema.deploy.store import deployments as store_module
from bema.deploy.store.deployments import MemoryStore, SqliteStore, Store, StoredReply

CODE = b"print('hello')\n"


def deployment(id: str = "one", name: str = "hello", owner: str = "local", digest: str = "d1") -> Deployment:
    version = Version(number=1, digest=digest, entry=ScriptEntry("app", "app"), env={"K": "V"}, created=1)
    return Deployment(id=id, name=name, owner=owner, versions=(version,), created=1, updated=1)


@contextlib.asynccontextmanager
async def opened(kind: str, path: Path) -> AsyncIterator[Store]:
    store: Store = await SqliteStore.at(path / "store.sqlite") if kind == "sqlite" else MemoryStore()
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
            assert await store.code("d1") == CODE
            built = deployment().built(Build(state="done", key="k"), 2)
            await store.save(built)
            assert store.deployments()["one"].version.build.key == "k"
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
            for change in (store.save(deployment()), store.delete("one")):
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
            assert await store.code("d1") == CODE
            await store.delete("two")
            with pytest.raises(NotFound):
                await store.code("d1")

    asyncio.run(story())


def test_everything_survives_a_restart(tmp_path: Path):
    async def story() -> None:
        full = msgspec.structs.replace(deployment(), attempts=(Attempt(instance=2**62, at=5, log=("line",)),))
        async with opened("sqlite", tmp_path) as store:
            await store.create(full, CODE, StoredReply("key", "body", b"reply"))
            await store.remember("seed.hello", "one")
        async with opened("sqlite", tmp_path) as again:
            assert dict(again.deployments()) == {"one": full}
            assert again.answer("key", "body") == b"reply"
            assert again.fact("seed.hello") == "one"
            assert again.fact("other") is None
            assert await again.code("d1") == CODE

    asyncio.run(story())


def test_a_reply_means_it_is_on_disk(tmp_path: Path):
    async def story() -> None:
        async with opened("sqlite", tmp_path) as store:
            await store.create(deployment(), CODE)
            with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite")) as other:
                assert other.execute("SELECT name FROM deployments").fetchall() == [("hello",)]
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
                on_disk = {id for (id,) in other.execute("SELECT id FROM deployments")}
            assert set(store.deployments()) == on_disk

    asyncio.run(story())


def test_a_newer_store_is_left_alone(tmp_path: Path):
    path = tmp_path / "store.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(Refused) as caught:
        asyncio.run(SqliteStore.at(path))
    assert caught.value.code == "store_newer"
    assert "\n" not in caught.value.message
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


def test_an_older_store_is_copied_then_taken_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def before() -> None:
        async with opened("sqlite", tmp_path) as store:
            await store.create(deployment(), CODE)

    asyncio.run(before())
    monkeypatch.setattr(store_module, "MIGRATIONS", (*store_module.MIGRATIONS, "CREATE TABLE more (x);"))

    async def after() -> None:
        async with opened("sqlite", tmp_path) as store:
            assert set(store.deployments()) == {"one"}

    asyncio.run(after())
    with contextlib.closing(sqlite3.connect(tmp_path / "store.v1.backup")) as copy:
        assert copy.execute("SELECT id FROM deployments").fetchall() == [("one",)]
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
    with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


@pytest.mark.parametrize(
    "make", [lambda p: p.mkdir(), lambda p: p.write_bytes(b"not a database, but long enough" * 99)]
)
def test_a_file_that_is_no_store_is_refused_in_one_line(tmp_path: Path, make):
    make(tmp_path / "store.sqlite")
    with pytest.raises(Refused) as caught:
        asyncio.run(SqliteStore.at(tmp_path / "store.sqlite"))
    assert caught.value.code == "state_unwritable"
    assert "\n" not in caught.value.message


def test_answers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_module, "ANSWERS_KEPT", 2)

    async def story() -> None:
        async with opened("sqlite", tmp_path) as store:
            for n in range(5):
                await store.create(deployment(f"id{n}", f"name{n}"), CODE, StoredReply(f"key{n}", "body", b"r"))
        async with opened("sqlite", tmp_path) as again:
            assert [n for n in range(5) if again.answer(f"key{n}", "body")] == [3, 4]

    asyncio.run(story())

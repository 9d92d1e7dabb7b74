"""Keys in the store: unique by name, told to who follows, and there again after a restart."""

from __future__ import annotations

import asyncio

import pytest

from bema.core.clock import ManualClock
from bema.core.errors import Conflict, NotFound
from bema.core.keys import ApiKey, digest_of
from bema.deploy.store.deployments import Store
from bema.deploy.store.keys import KeyRecords
from bema.state.memory import MemoryEngine


def key(name: str = "ci", expires: int = 0) -> ApiKey:
    return ApiKey(name=name, user="ada", digest=digest_of(name), created=1, expires=expires)


def test_a_key_is_kept_until_it_is_revoked():
    async def story() -> None:
        engine = MemoryEngine()
        keys = KeyRecords(Store(engine), ManualClock())
        await keys.add(key("ci"))
        await keys.add(key("a/b"))
        again = KeyRecords(await Store.open(engine), ManualClock())
        assert again.all() == [key("a/b"), key("ci")]
        await again.revoke("ci")
        assert again.all() == [key("a/b")]
        with pytest.raises(NotFound):
            await again.revoke("ci")

    asyncio.run(story())


def test_a_name_is_taken_while_its_key_is_in_force():
    async def story() -> None:
        clock = ManualClock()
        keys = KeyRecords(Store(MemoryEngine()), clock)
        await keys.add(key(expires=clock.now() + 1_000_000))
        with pytest.raises(Conflict) as caught:
            await keys.add(key())
        assert caught.value.code == "key_exists"
        clock.advance(2)
        await keys.add(key())
        assert keys.all() == [key()]

    asyncio.run(story())


def test_of_many_who_want_one_name_one_has_it():
    async def story() -> None:
        keys = KeyRecords(Store(MemoryEngine()), ManualClock())
        came = await asyncio.gather(*(keys.add(key()) for _ in range(10)), return_exceptions=True)
        assert sum(not isinstance(each, Conflict) for each in came) == 1

    asyncio.run(story())


def test_who_follows_hears_of_each_change():
    async def story() -> None:
        keys = KeyRecords(Store(MemoryEngine()), ManualClock())
        following = keys.follow()
        assert await anext(following) == []
        await keys.add(key())
        assert await anext(following) == [key()]
        await keys.revoke("ci")
        assert await anext(following) == []

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_record_that_cannot_be_read_names_nobody(caplog: pytest.LogCaptureFixture):
    async def story() -> None:
        store = Store(MemoryEngine())
        keys = KeyRecords(store, ManualClock())
        await keys.add(key())
        await store.remember("key/torn", '{"name": "torn"')
        assert keys.all() == [key()]

    asyncio.run(story())
    assert "torn" in caplog.text

"""What is kept of changes is bounded, in number and in bytes."""

import asyncio

import pytest

from bema.state import feed
from bema.state.engine import Missed, StateChange
from bema.state.feed import Feed


def change(revision: int, key: str = "k", value: bytes | None = b"v") -> StateChange:
    return StateChange(revision, key, value)


def test_old_changes_are_forgotten_by_number_and_by_bytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feed, "KEPT", 3)
    monkeypatch.setattr(feed, "KEPT_BYTES", 100)
    published = Feed()
    published.publish([change(n) for n in range(1, 6)], 5)
    assert [c.revision for c in published.watch(2, "").take()] == [3, 4, 5]
    with pytest.raises(Missed):
        published.watch(1, "").take()
    published.publish([change(6, value=bytes(99))], 6)
    assert [c.revision for c in published.watch(4, "").take()] == [5, 6]
    with pytest.raises(Missed):
        published.watch(3, "").take()


def test_a_watcher_that_takes_in_time_never_misses_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feed, "KEPT_BYTES", 100)
    published = Feed()
    watch, slow = published.watch(0, ""), published.watch(0, "")
    for revision in range(1, 50):
        published.publish([change(revision, value=bytes(60))], revision)
        assert [c.revision for c in watch.take()] == [revision]
    with pytest.raises(Missed):
        slow.take()


def test_what_a_watcher_is_not_about_costs_it_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feed, "KEPT", 3)
    published = Feed()
    watch = published.watch(0, "mine/")
    published.publish([change(1, "mine/a")], 1)
    published.publish([change(n, "other") for n in range(2, 20)], 19)
    assert [c.revision for c in watch.take()] == [1]


def test_two_who_wait_on_one_watch_are_both_woken():
    async def story() -> None:
        published = Feed()
        watch = published.watch(0, "")
        waiting = [asyncio.ensure_future(anext(watch)) for _ in range(2)]
        await asyncio.sleep(0)
        published.publish([change(1), change(2)], 2)
        assert sorted([(await one).revision for one in waiting]) == [1, 2]

    asyncio.run(story())


def test_one_who_waits_and_gives_up_takes_nothing_along():
    async def story() -> None:
        published = Feed()
        watch = published.watch(0, "")
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        published.publish([change(1)], 1)
        assert (await anext(watch)).revision == 1
        watch.close()
        assert [c async for c in watch] == []

    asyncio.run(story())

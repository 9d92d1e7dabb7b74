"""The laws of the state engine: groups happen whole, each at its revision, and watchers see each change once, in order.

`durable`: a part from `make`, after the earlier one was closed, holds what that one held. `exclusive`: while one is open, a
second on the same ground is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable
from typing import Any

from bema.core.errors import BemaError, Conflict, Invalid, NotFound, Refused, TooLarge
from bema.parts.opening import unopenable
from bema.state.engine import KEY_MAX, Entry, Missed, Mutation, StateChange, StateWatch
from bema.testing.conformance.frame import Make, Suite

SUITE = Suite("state")


def put(key: str, value: bytes = b"v", if_revision: int | None = None) -> Mutation:
    return Mutation(key, value, if_revision)


def take_away(key: str, if_revision: int | None = None) -> Mutation:
    return Mutation(key, None, if_revision)


async def refused(work: Awaitable[Any], by: type[BemaError]) -> BemaError:
    """The error that `work` ends with."""
    try:
        await work
    except by as error:
        return error
    raise AssertionError(f"{by.__name__} was not raised")


async def next_of(watch: StateWatch, count: int) -> list[StateChange]:
    async with asyncio.timeout(10):
        return [await anext(watch) for _ in range(count)]


@SUITE.law()
async def what_was_put_is_there(make: Make) -> None:
    """What was put under a key is under it, with its revision, until it is replaced or taken away."""
    engine = await make()
    assert (engine.revision, await engine.get("a")) == (0, None)
    first = await engine.apply([put("a", b"1")])
    assert await engine.get("a") == Entry("a", b"1", first)
    second = await engine.apply([put("a", b"2")])
    assert await engine.get("a") == Entry("a", b"2", second)
    await engine.apply([take_away("a")])
    assert await engine.get("a") is None


@SUITE.law()
async def every_mutation_has_a_revision(make: Make) -> None:
    """Every mutation takes the next revision; the answer is that of the last one."""
    engine = await make()
    start = engine.revision
    # Taking away what is not there counts as well, or two engines would number a history
    # differently.
    assert await engine.apply([put("a"), put("b"), take_away("none")]) == start + 3
    assert await engine.apply([put("c")]) == start + 4 == engine.revision
    entries = {entry.key: entry.revision for entry in await engine.scan()}
    assert entries == {"a": start + 1, "b": start + 2, "c": start + 4}


@SUITE.law()
async def a_group_is_whole_or_not_at_all(make: Make) -> None:
    """Where one key of a group has another revision than was asked, nothing of the group happens, and the key is named."""
    engine = await make()
    revision = await engine.apply([put("a")])
    error = await refused(engine.apply([put("b"), put("a", b"2", revision + 7)]), Conflict)
    assert (error.code, error.details) == ("conflict", {"key": "a", "revision": revision})
    assert [entry.key for entry in await engine.scan()] == ["a"]
    assert engine.revision == revision


@SUITE.law()
async def revision_zero_is_not_there(make: Make) -> None:
    """A mutation under revision 0 happens only while the key is not there."""
    engine = await make()
    revision = await engine.apply([put("a", b"1", 0)])
    error = await refused(engine.apply([put("a", b"2", 0)]), Conflict)
    assert error.details["revision"] == revision
    await engine.apply([take_away("a", revision)])
    assert (await refused(engine.apply([take_away("a", revision)]), Conflict)).details["revision"] == 0
    await engine.apply([put("a", b"3", 0)])


@SUITE.law()
async def one_wins_and_the_others_are_told(make: Make) -> None:
    """Of many that ask at once for the same revision one succeeds; those beside them are not touched by it."""
    engine = await make()
    tries = [engine.apply([put("one", bytes([n]), 0), put(f"with/{n}")]) for n in range(20)]
    others = [engine.apply([put(f"beside/{n}")]) for n in range(20)]
    done = await asyncio.gather(*tries, *others, return_exceptions=True)
    assert sum(isinstance(outcome, int) for outcome in done[:20]) == 1
    assert all(isinstance(outcome, Conflict) for outcome in done[:20] if not isinstance(outcome, int))
    assert len({*done[20:]}) == 20
    assert (len(await engine.scan("with/")), len(await engine.scan("beside/"))) == (1, 20)


@SUITE.law()
async def a_scan_is_in_order_and_in_pages(make: Make) -> None:
    """A scan gives the entries of a prefix in the order of their bytes, from a key on, as many as asked."""
    engine = await make()
    keys = ["a", "a/", "a/1", "a/10", "a/2", "a/é", "a/\uffff", "a/\U0001f600", "b", "é"]
    await engine.apply([put(key, key.encode()) for key in reversed(keys)])
    assert [entry.key for entry in await engine.scan()] == sorted(keys, key=str.encode)
    below = [key for key in sorted(keys, key=str.encode) if key.startswith("a/")]
    found, after = [], ""
    while page := await engine.scan("a/", after, 2):
        assert len(page) <= 2
        found += [entry.key for entry in page]
        after = page[-1].key
    assert found == below
    assert await engine.scan("a/", "b") == []
    found, before = [], ""
    while page := await engine.scan_back("a/", before, 2):
        assert len(page) <= 2
        found += [entry.key for entry in page]
        before = page[-1].key
    assert found == below[::-1]
    assert [entry.key for entry in await engine.scan_back("a/", "b", 1)] == below[-1:]
    assert await engine.scan_back("a/", "a/") == []


@SUITE.law()
async def changes_are_watched(make: Make) -> None:
    """A watcher sees each change of its prefix once, in order, from the revision it named, old ones and new ones."""
    engine = await make()
    start = await engine.apply([put("w/a", b"1"), put("other")])
    everything = engine.watch(start - 2)
    later = engine.watch(start, "w/")
    await engine.apply([put("w/b", b"2"), take_away("w/none"), take_away("w/a"), put("other", b"3")])
    assert await next_of(later, 2) == [StateChange(start + 1, "w/b", b"2"), StateChange(start + 3, "w/a", None)]
    seen = [change.revision - start for change in await next_of(everything, 5)]
    assert seen == [-1, 0, 1, 3, 4]
    assert later.take() == everything.take() == []


@SUITE.law()
async def a_watcher_waits(make: Make) -> None:
    """A watcher is woken by the change it waits for, and what was answered can be taken at once."""
    engine = await make()
    watch = engine.watch(engine.revision)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    revision = await engine.apply([put("a")])
    assert await asyncio.wait_for(waiting, 10) == StateChange(revision, "a", b"v")
    revision = await engine.apply([put("a", b"2")])
    assert watch.take() == [StateChange(revision, "a", b"2")]


@SUITE.law()
async def who_missed_changes_is_told(make: Make) -> None:
    """A watcher that is too slow, or asks for changes no longer kept, is told so instead of getting a gap."""
    engine = await make()
    slow = engine.watch(engine.revision)
    quick = engine.watch(engine.revision)
    for turn in range(40):
        await engine.apply([put(f"k/{turn}/{n}") for n in range(1000)])
        assert len(quick.take()) == 1000
    await refused(anext(slow), Missed)
    await refused(anext(slow), Missed)
    await refused(anext(engine.watch(0)), Missed)
    kept = engine.watch(engine.revision - 1)
    assert [change.key for change in kept.take()] == ["k/39/999"]


@SUITE.law()
async def content_is_kept_by_digest(make: Make) -> None:
    """Content is found by its SHA-256, whoever put it, until it is dropped."""
    engine = await make()
    digest = await engine.put_blob(b"content")
    assert digest == hashlib.sha256(b"content").hexdigest() == await engine.put_blob(b"content")
    other = await engine.put_blob(b"")
    assert (await engine.blob(digest), await engine.blob(other)) == (b"content", b"")
    assert await engine.blobs() == sorted((digest, other))
    await engine.drop_blobs([digest, "0" * 64])
    await refused(engine.blob(digest), NotFound)
    assert await engine.blobs() == [other]


@SUITE.law()
async def what_cannot_be_stored_is_refused_alone(make: Make) -> None:
    """A key or value that cannot be stored is refused, and harms nobody who asks at the same time."""
    engine = await make()
    bad: list[list[Mutation]] = [
        [],
        [put("")],
        [put("\0")],
        [put("\ud800")],
        [put("k" * (KEY_MAX + 1))],
        [put("a"), put("a")],
        [put("a", "text")],  # type: ignore[arg-type]
    ]
    good = [engine.apply([put(f"g/{n}")]) for n in range(len(bad))]
    done = await asyncio.gather(*map(engine.apply, bad), *good, return_exceptions=True)
    assert all(isinstance(outcome, Invalid) for outcome in done[: len(bad)])
    assert all(isinstance(outcome, int) for outcome in done[len(bad) :])
    await refused(engine.apply([put("a", bytes(64 * 1024 * 1024))]), TooLarge)
    await engine.apply([put("é" * (KEY_MAX // 2))])


@SUITE.law()
async def who_gives_up_changes_nothing(make: Make) -> None:
    """What a cancelled caller asked for is done whole, shown to watchers, or not at all."""
    engine = await make()
    watch = engine.watch(engine.revision)
    task = asyncio.ensure_future(engine.apply([put("a"), put("b")]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    entries = await engine.scan()
    assert [entry.key for entry in entries] in ([], ["a", "b"])
    assert [change.key for change in watch.take()] == [entry.key for entry in entries]


@SUITE.law()
async def closing_ends_everything(make: Make) -> None:
    """What was asked before closing is done; watchers end; afterwards everything is refused."""
    engine = await make()
    watch = engine.watch(engine.revision)
    last = asyncio.ensure_future(engine.apply([put("a")]))
    await asyncio.sleep(0)
    await engine.close()
    assert await last
    assert [change.key async for change in watch] == ["a"]
    for work in (engine.apply([put("b")]), engine.get("a"), engine.scan(), engine.blobs()):
        assert (await refused(work, Refused)).code == "state_failed"
    await engine.close()


@SUITE.law("durable")
async def all_of_it_is_durable(make: Make) -> None:
    """What returned before closing is there when it is opened again, and revisions go on from there."""
    engine = await make()
    revision = await engine.apply([put("a", b"1"), put("gone"), put("b", bytes(range(256)))])
    last = await engine.apply([take_away("gone")])
    digest = await engine.put_blob(b"content")
    await engine.close()
    again = await make()
    assert again.revision == last
    assert await again.scan() == [Entry("a", b"1", revision - 2), Entry("b", bytes(range(256)), revision)]
    assert await again.blob(digest) == b"content"
    await refused(anext(again.watch(revision)), Missed)
    assert await again.apply([put("c")]) == last + 1


@SUITE.law("exclusive")
async def one_owner_at_a_time(make: Make) -> None:
    """A second opener is refused in one line that names the holder; after closing the next one is not."""
    engine = await make()
    error = await refused(make(), Refused)
    assert error.code == "state_held"
    assert "\n" not in error.message and "process" in error.message
    await engine.apply([put("a")])
    await engine.close()
    assert await (await make()).get("a") is not None


@SUITE.law()
async def it_is_opened_with_settings(make: Make) -> None:
    """Its class has `open(settings)`, or is made without arguments: else no program could take it by its name."""
    made = await make()
    assert unopenable(type(made), "waiting") == ""
    await made.close()

"""The laws of the jobs engine: what was accepted is there, the newest claim alone writes, and what is written once stays.

`durable`: an engine from `make`, after the earlier one was closed, holds what that one held. `exclusive`: while one is open, a
second on the same ground is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import msgspec

from bema.core.errors import BemaError, Conflict, NotFound, Refused
from bema.core.naming import new_call_id
from bema.core.timetable import timetable
from bema.jobs.calls import CallRecord, CallWait, DurableState, moved
from bema.jobs.engine import JobsEngine, StaleClaim
from bema.jobs.journal import JournalEntry
from bema.jobs.schedule import Schedule
from bema.testing.conformance.frame import Make, Suite

SUITE = Suite("jobs")

NOW = 1_700_000_000_000_000


def record(instant: int = NOW, **more: Any) -> CallRecord:
    return CallRecord(id=new_call_id(instant), route="t.t.f", created=instant, **more)


def entry(order: int) -> JournalEntry:
    return JournalEntry(order=order, place=str(order), kind="step", name="f", value=b"\xc3", at=NOW)


async def claimed(engine: JobsEngine, made: CallRecord | None = None, version: str = "") -> CallRecord:
    """A call that runs; a new one, where none is given."""
    made = await engine.create(record(), b"") if made is None else made
    return await engine.claim(made.id, version)


async def refused(work: Awaitable[Any], by: type[BemaError]) -> BemaError:
    """The error that `work` ends with."""
    try:
        await work
    except by as error:
        return error
    raise AssertionError(f"{by.__name__} was not raised")


@SUITE.law()
async def a_call_is_kept_with_its_arguments(make: Make) -> None:
    """A call that was created is among those that live, with its arguments."""
    engine = await make()
    made = await engine.create(record(), b"arguments")
    assert engine.live()[made.id] == made == await engine.get(made.id)
    assert await engine.arguments(made.id) == b"arguments"
    await refused(engine.get(new_call_id(NOW + 1)), NotFound)


@SUITE.law()
async def the_same_id_is_the_same_call(make: Make) -> None:
    """The same id again gives the call that is there, and other arguments under it are refused."""
    engine = await make()
    made = await engine.create(record(), b"1")
    assert await engine.create(made, b"1") == made
    assert (await refused(engine.create(made, b"2"), Conflict)).code == "call_exists"


@SUITE.law()
async def the_same_key_is_the_same_call(make: Make) -> None:
    """The same key on one route gives the first call, also when many ask at once and when it has ended."""
    engine = await make()
    asked = [record(NOW + n, key="order 7") for n in range(20)]
    made = await asyncio.gather(*(engine.create(one, b"1") for one in asked))
    assert len({one.id for one in made}) == len(engine.live()) == 1
    other = msgspec.structs.replace(record(key="order 7"), route="t.t.g")
    assert (await engine.create(other, b"2")).id == other.id
    running = await claimed(engine, made[0])
    await engine.end(running.id, running.fence, DurableState.DONE, b"r", now=NOW)
    assert (await engine.create(record(key="order 7"), b"1")).state is DurableState.DONE
    await refused(engine.create(record(key="order 7"), b"other arguments"), Conflict)


@SUITE.law()
async def the_newest_claim_alone_writes(make: Make) -> None:
    """Of two claims the newer alone may write, and a call stays on the version that it began on."""
    engine = await make()
    made = await engine.create(record(), b"")
    first = await claimed(engine, made, "v1")
    await engine.suspend(made.id, first.fence, lambda r: moved(r, DurableState.QUEUED))
    second = await claimed(engine, made, "v2")
    assert (second.fence > first.fence, second.attempts, second.version) == (True, 2, "v1")
    for write in (
        engine.complete(made.id, first.fence, entry(1)),
        engine.suspend(made.id, first.fence, lambda r: moved(r, DurableState.PAUSED)),
        engine.end(made.id, first.fence, DurableState.DONE, b""),
    ):
        await refused(write, StaleClaim)
    await engine.complete(made.id, second.fence, entry(1))
    assert len(await engine.journal(made.id)) == 1


@SUITE.law()
async def what_runs_is_not_claimed_again(make: Make) -> None:
    """A call that runs cannot be claimed, nor one that has ended."""
    engine = await make()
    running = await claimed(engine)
    await refused(engine.claim(running.id, ""), Conflict)
    await engine.end(running.id, running.fence, DurableState.DONE, b"", now=NOW)
    await refused(engine.claim(running.id, ""), NotFound)


@SUITE.law()
async def a_journal_is_in_its_order(make: Make) -> None:
    """A journal is read in the order of its entries, however long it is, and an entry is written once."""
    engine = await make()
    running = await claimed(engine)
    for order in range(1, 1205):
        await engine.complete(running.id, running.fence, entry(order))
    journal = await engine.journal(running.id)
    assert [one.order for one in journal.entries] == list(range(1, 1205))
    await refused(engine.complete(running.id, running.fence, entry(7)), Conflict)
    later = await engine.journal(running.id, after=1200)
    assert [one.order for one in later.entries] == [1201, 1202, 1203, 1204]


@SUITE.law()
async def what_has_ended_is_read_and_never_runs(make: Make) -> None:
    """A call that has ended keeps its end and its result, and lives no more."""
    engine = await make()
    running = await claimed(engine)
    await engine.end(running.id, running.fence, DurableState.FAILED, b"failure", "odd", "it was odd", now=NOW + 5)
    assert not engine.live()
    found = await engine.get(running.id)
    assert (found.state, found.ended, found.code, found.why) == (DurableState.FAILED, NOW + 5, "odd", "it was odd")
    assert await engine.outcome(running.id) == b"failure"


@SUITE.law()
async def the_newest_that_ended_come_first(make: Make) -> None:
    """Those that ended are listed the newest first, a page at a time."""
    engine = await make()
    ids = []
    for n in range(30):
        running = await claimed(engine, await engine.create(record(NOW + n * 10_000_000), b""))
        await engine.end(running.id, running.fence, DurableState.DONE, b"", now=NOW)
        ids.append(running.id)
    assert [one.id for one in await engine.recent(5)] == ids[:-6:-1]
    assert [one.id for one in await engine.recent(5, ids[10])] == ids[9:4:-1]
    assert len(await engine.recent(100)) == 30


@SUITE.law()
async def a_restart_forgets_from_a_step_on(make: Make) -> None:
    """A call that failed is queued again without its later entries, and whoever ran it before writes nothing more."""
    engine = await make()
    running = await claimed(engine)
    for order in (1, 2, 3):
        await engine.complete(running.id, running.fence, entry(order))
    await engine.end(running.id, running.fence, DurableState.FAILED, b"failure", now=NOW)
    again = await engine.restart(running.id, 2)
    assert (again.state, again.ended, again.why) == (DurableState.QUEUED, 0, "")
    assert [one.order for one in (await engine.journal(running.id)).entries] == [1]
    await refused(engine.outcome(running.id), NotFound)
    await refused(engine.complete(running.id, running.fence, entry(2)), StaleClaim)


@SUITE.law()
async def a_signal_is_kept_until_it_is_taken(make: Make) -> None:
    """Signals are kept in order, and one is gone with the entry that took it."""
    engine = await make()
    made = await engine.create(record(), b"")
    keys = [await engine.signal(made.id, "go", b"%d" % n) for n in range(3)]
    assert await engine.signals(made.id) == [(key, "go", b"%d" % n) for n, key in enumerate(keys)]
    running = await claimed(engine, made)
    await engine.complete(running.id, running.fence, entry(1), keys[0])
    assert [key for key, _, _ in await engine.signals(made.id)] == keys[1:]
    await refused(engine.signal(new_call_id(NOW + 1), "go", b""), NotFound)


@SUITE.law()
async def schedules_are_kept_by_name(make: Make) -> None:
    """A schedule is kept under its name, replaced as a whole, and dropped once."""
    engine = await make()
    assert await engine.schedules() == []
    made = [
        Schedule(name=name, route="t.t.f", timetable=timetable("0 3 * * *", tz="Europe/Berlin"), arguments=b"a")
        for name in ("b", "a")
    ]
    for one in made:
        await engine.keep_schedule(one)
    assert await engine.schedules() == made[::-1]
    changed = msgspec.structs.replace(made[0], passed=NOW, fired=NOW, paused=True)
    await engine.keep_schedule(changed)
    await engine.drop_schedule("a")
    await engine.drop_schedule("never was")
    assert await engine.schedules() == [changed]


@SUITE.law("durable")
async def all_of_it_outlives_its_owner(make: Make) -> None:
    """What ran when its owner ended is queued, what waited waits, what has ended has; no claim of before writes."""
    engine = await make()
    ran, slept, paused, done = [await claimed(engine, version="v1") for _ in range(4)]
    await engine.complete(ran.id, ran.fence, entry(1))
    wait = CallWait(place="1", kind="sleep", due=NOW + 9)
    await engine.suspend(slept.id, slept.fence, lambda r: moved(r, DurableState.SLEEPING, waits=(wait,), due=NOW + 9))
    await engine.suspend(paused.id, paused.fence, lambda r: moved(r, DurableState.PAUSED, why="no"))
    await engine.end(done.id, done.fence, DurableState.DONE, b"result", now=NOW)
    kept = Schedule(name="a", route="t.t.f", timetable=timetable(every=60), since=NOW, passed=NOW, call="c")
    await engine.keep_schedule(kept)
    await engine.close()
    again = await make()
    live = again.live()
    assert live[ran.id].state is DurableState.QUEUED
    assert (live[slept.id].state, live[slept.id].due) == (DurableState.SLEEPING, NOW + 9)
    assert (live[paused.id].state, live[paused.id].why) == (DurableState.PAUSED, "no")
    assert await again.outcome(done.id) == b"result"
    assert await again.schedules() == [kept]
    assert len(await again.journal(ran.id)) == 1
    await refused(again.complete(ran.id, ran.fence, entry(2)), StaleClaim)
    assert (await again.claim(ran.id, "v2")).fence > ran.fence


@SUITE.law("exclusive")
async def calls_have_one_owner(make: Make) -> None:
    """While one has the calls, another is refused with `state_held`."""
    engine = await make()
    assert (await refused(make(), Refused)).code == "state_held"
    await engine.close()
    await make()

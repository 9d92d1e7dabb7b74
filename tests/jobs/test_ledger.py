"""What every jobs engine promises, held by each that there is."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bema.core.errors import Conflict, NotFound, Overloaded, Refused, TooLarge
from bema.core.limits import DEFAULTS
from bema.core.naming import new_call_id
from bema.core.settings import PartSettings
from bema.core.timetable import timetable
from bema.jobs.calls import CallRecord, CallWait, DurableState, moved
from bema.jobs.engine import JobsFactory, StaleClaim
from bema.jobs.journal import JournalEntry
from bema.jobs.ledger import SqliteLedger
from bema.jobs.schedule import Schedule
from bema.state.engine import Mutation
from bema.state.sqlite import SqliteEngine

NOW = 1_700_000_000_000_000


def record(instant: int = NOW, **more: Any) -> CallRecord:
    return CallRecord(id=new_call_id(instant), route="t.t.f", created=instant, **more)


def entry(order: int, **more: Any) -> JournalEntry:
    return JournalEntry(order=order, place=str(order), kind="step", name="f", value=b"\xc3", at=NOW, **more)


@pytest.fixture(params=["memory", "sqlite"])
def told(request, tmp_path):
    """Runs a story with an engine; `limits` may differ from the defaults."""

    def run(story, **limits):
        async def whole():
            settings = PartSettings({}, msgspec.structs.replace(DEFAULTS, **limits), tmp_path)
            engine = await JobsFactory.lookup(request.param).open(settings, "t.t")
            try:
                return await story(engine)
            finally:
                await engine.close()

        return asyncio.run(whole())

    return run


@pytest.fixture
def reopened(tmp_path):
    """Runs stories one after the other, each with what the one before left in the file."""

    def run(*stories, **limits):
        async def whole():
            settings = PartSettings({}, msgspec.structs.replace(DEFAULTS, **limits), tmp_path)
            for story in stories:
                engine = await JobsFactory.lookup("sqlite").open(settings, "t.t")
                try:
                    await story(engine)
                finally:
                    await engine.close()

        asyncio.run(whole())

    return run


def test_a_call_is_kept_with_its_arguments(told):
    async def story(engine):
        made = await engine.create(record(), b"arguments")
        assert engine.live()[made.id] == made == await engine.get(made.id)
        assert await engine.arguments(made.id) == b"arguments"

    told(story)


def test_the_same_id_again_is_the_same_call(told):
    async def story(engine):
        made = await engine.create(record(), b"1")
        assert await engine.create(made, b"1") == made
        with pytest.raises(Conflict) as refused:
            await engine.create(made, b"2")
        assert refused.value.code == "call_exists"

    told(story)


def test_the_same_key_gives_the_first_call_also_when_many_ask_at_once(told):
    async def story(engine):
        asked = [record(NOW + n, key="order 7") for n in range(20)]
        made = await asyncio.gather(*(engine.create(one, b"1") for one in asked))
        assert len({one.id for one in made}) == 1
        assert len(engine.live()) == 1
        ended = await engine.claim(made[0].id, "v1")
        await engine.end(ended.id, ended.fence, DurableState.DONE, b"r", now=NOW)
        assert (await engine.create(record(key="order 7"), b"1")).state is DurableState.DONE
        with pytest.raises(Conflict):
            await engine.create(record(key="order 7"), b"other arguments")

    told(story)


def test_the_newest_claim_alone_may_write(told):
    async def story(engine):
        made = await engine.create(record(), b"")
        first = await engine.claim(made.id, "v1")
        await engine.suspend(made.id, first.fence, lambda r: moved(r, DurableState.QUEUED))
        second = await engine.claim(made.id, "v2")
        assert (second.fence, second.attempts, second.version) == (first.fence + 1, 2, "v1")
        for write in (
            lambda: engine.complete(made.id, first.fence, entry(1)),
            lambda: engine.suspend(made.id, first.fence, lambda r: moved(r, DurableState.PAUSED)),
            lambda: engine.end(made.id, first.fence, DurableState.DONE, b""),
        ):
            with pytest.raises(StaleClaim):
                await write()
        await engine.complete(made.id, second.fence, entry(1))
        assert len(await engine.journal(made.id)) == 1

    told(story)


def test_a_journal_is_read_in_its_order(told):
    async def story(engine):
        claimed = await engine.claim((await engine.create(record(), b"")).id, "")
        for order in range(1, 1205):
            await engine.complete(claimed.id, claimed.fence, entry(order))
        journal = await engine.journal(claimed.id)
        assert [one.order for one in journal.entries] == list(range(1, 1205))
        assert journal.next_order == 1205
        assert journal.at("7").order == 7

    told(story)


def test_an_entry_is_written_once(told):
    async def story(engine):
        claimed = await engine.claim((await engine.create(record(), b"")).id, "")
        await engine.complete(claimed.id, claimed.fence, entry(1))
        with pytest.raises(Conflict):
            await engine.complete(claimed.id, claimed.fence, entry(1))

    told(story)


def test_what_has_ended_is_read_and_never_runs(told):
    async def story(engine):
        claimed = await engine.claim((await engine.create(record(), b"")).id, "")
        await engine.end(claimed.id, claimed.fence, DurableState.DONE, b"result", now=NOW + 5)
        assert not engine.live()
        assert (await engine.get(claimed.id)).ended == NOW + 5
        assert await engine.outcome(claimed.id) == b"result"
        with pytest.raises(NotFound):
            await engine.claim(claimed.id, "")

    told(story)


def test_a_call_whose_end_cannot_be_written_is_there_all_the_while(told):
    async def story(engine):
        claimed = await engine.claim((await engine.create(record(), b"")).id, "")
        state = engine._state

        async def full(mutations):
            await state.get("meta/ended")  # takes its turn in the queue, as a commit does
            raise Refused("the disk is full", code="state_unwritable")

        state.apply = full
        end = asyncio.ensure_future(engine.end(claimed.id, claimed.fence, DurableState.DONE, b"result", now=NOW + 5))
        await asyncio.sleep(0)
        assert (await engine.get(claimed.id)).state is DurableState.RUNNING
        with pytest.raises(Refused):
            await end

    told(story)


def test_the_newest_that_ended_come_first(told):
    async def story(engine):
        ids = []
        for n in range(30):
            claimed = await engine.claim((await engine.create(record(NOW + n * 10_000_000), b"")).id, "")
            await engine.end(claimed.id, claimed.fence, DurableState.DONE, b"", now=NOW)
            ids.append(claimed.id)
        assert [one.id for one in await engine.recent(5)] == ids[:-6:-1]
        assert [one.id for one in await engine.recent(5, ids[10])] == ids[9:4:-1]
        assert len(await engine.recent(100)) == 30

    told(story)


def test_a_restart_forgets_from_a_step_on(told):
    async def story(engine):
        claimed = await engine.claim((await engine.create(record(), b"")).id, "")
        for order in (1, 2, 3):
            await engine.complete(claimed.id, claimed.fence, entry(order))
        await engine.end(claimed.id, claimed.fence, DurableState.FAILED, b"failure", now=NOW)
        again = await engine.restart(claimed.id, 2)
        assert (again.state, again.ended, again.why) == (DurableState.QUEUED, 0, "")
        assert [one.order for one in (await engine.journal(claimed.id)).entries] == [1]
        with pytest.raises(NotFound):
            await engine.outcome(claimed.id)
        with pytest.raises(StaleClaim):
            await engine.complete(claimed.id, claimed.fence, entry(2))

    told(story)


def test_a_signal_is_kept_until_it_is_taken(told):
    async def story(engine):
        made = await engine.create(record(), b"")
        keys = [await engine.signal(made.id, "go", b"%d" % n) for n in range(3)]
        assert await engine.signals(made.id) == [(key, "go", b"%d" % n) for n, key in enumerate(keys)]
        claimed = await engine.claim(made.id, "")
        await engine.complete(claimed.id, claimed.fence, entry(1), keys[0])
        assert [key for key, _, _ in await engine.signals(made.id)] == keys[1:]

    told(story)


@pytest.mark.parametrize("what", ["arguments", "step", "result"])
def test_what_is_too_large_is_refused(told, what):
    async def story(engine):
        large = b"x" * 1025
        if what == "arguments":
            with pytest.raises(TooLarge, match="jobs_payload"):
                await engine.create(record(), large)
            return
        claimed = await engine.claim((await engine.create(record(), b"")).id, "")
        with pytest.raises(TooLarge, match="jobs_payload"):
            if what == "step":
                await engine.complete(claimed.id, claimed.fence, msgspec.structs.replace(entry(1), value=large))
            else:
                await engine.end(claimed.id, claimed.fence, DurableState.DONE, large)
        assert (await engine.get(claimed.id)).state is DurableState.RUNNING

    told(story, jobs_payload=1024)


def test_a_history_has_a_bound(told):
    async def story(engine):
        claimed = await engine.claim((await engine.create(record(), b"")).id, "")
        with pytest.raises(TooLarge, match="jobs_history"):
            await engine.complete(claimed.id, claimed.fence, entry(17))

    told(story, jobs_history=16)


def test_live_calls_have_a_bound_and_none_of_them_is_lost(told):
    async def story(engine):
        asked = [record(NOW + n, key=f"key {n}") for n in range(5)]
        made = await asyncio.gather(*(engine.create(one, b"") for one in asked), return_exceptions=True)
        refused = [one for one in made if isinstance(one, Overloaded)]
        assert [(one.code, one.retry_after) for one in refused] == [("jobs_full", 1.0)] * 2
        assert len(engine.live()) == 3
        first = next(one for one in made if isinstance(one, CallRecord))
        again = record(key=first.key)
        assert (await engine.create(again, b"")).id == first.id, "one that is there is answered"
        claimed = await engine.claim(first.id, "")
        await engine.end(first.id, claimed.fence, DurableState.DONE, b"", now=NOW)
        assert (await engine.create(record(), b"")).id in engine.live(), "there is room again"

    told(story, jobs_live=3)


def test_a_refused_call_leaves_its_key_free(told):
    async def story(engine):
        kept = await engine.create(record(), b"")
        with pytest.raises(Overloaded):
            await engine.create(record(key="order 7"), b"1")
        claimed = await engine.claim(kept.id, "")
        await engine.end(kept.id, claimed.fence, DurableState.DONE, b"", now=NOW)
        made = await engine.create(record(key="order 7"), b"2")
        assert await engine.arguments(made.id) == b"2"

    told(story, jobs_live=1)


def test_schedules_are_kept_by_name(told):
    async def story(engine):
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
        with pytest.raises(TooLarge, match="jobs_payload"):
            await engine.keep_schedule(msgspec.structs.replace(changed, arguments=b"x" * 1025))

    told(story, jobs_payload=1024)


def test_schedules_outlive_their_owner(reopened):
    made = Schedule(name="a", route="t.t.f", timetable=timetable(every=60), since=NOW, passed=NOW, call="c")

    async def first(engine):
        await engine.keep_schedule(made)

    async def second(engine):
        assert await engine.schedules() == [made]

    reopened(first, second)


@pytest.mark.parametrize(("limits", "left"), [({"jobs_kept": 3}, 3), ({"jobs_kept_for": 50.0}, 5)])
def test_what_is_kept_no_longer_is_swept_from_the_oldest_on(told, limits, left):
    async def story(engine):
        for n in range(10):
            made = await engine.create(record(NOW + n * 10_000_000, key=f"key {n}"), b"")
            claimed = await engine.claim(made.id, "")
            await engine.complete(claimed.id, claimed.fence, entry(1))
            await engine.end(claimed.id, claimed.fence, DurableState.DONE, b"", now=NOW + n * 10_000_000)
        asleep = await engine.create(record(NOW), b"")
        now = NOW + 100_000_000
        assert await engine.sweep(now) == 10 - left
        assert len(await engine.recent(100)) == left
        assert await engine.sweep(now) == 0
        assert asleep.id in engine.live()
        assert (await engine.create(record(now, key="key 0"), b"other")).created == now, "its key is free again"

    told(story, **limits)


def test_what_ran_when_its_owner_died_is_queued_and_what_waited_waits(reopened):
    ids = {}

    async def first(engine):
        for name in ("ran", "slept", "paused"):
            ids[name] = (await engine.create(record(), b"")).id
            claimed = await engine.claim(ids[name], "v1")
            if name == "slept":
                wait = CallWait(place="1", kind="sleep", due=NOW + 9)
                await engine.suspend(
                    claimed.id,
                    claimed.fence,
                    lambda r, w=wait: moved(r, DurableState.SLEEPING, waits=(w,), due=NOW + 9),
                )
            elif name == "paused":
                await engine.suspend(claimed.id, claimed.fence, lambda r: moved(r, DurableState.PAUSED, why="no"))

    async def second(engine):
        live = engine.live()
        assert live[ids["ran"]].state is DurableState.QUEUED
        assert (live[ids["slept"]].state, live[ids["slept"]].due) == (DurableState.SLEEPING, NOW + 9)
        assert (live[ids["paused"]].state, live[ids["paused"]].why) == (DurableState.PAUSED, "no")
        with pytest.raises(StaleClaim):
            await engine.complete(ids["ran"], 1, entry(1))

    reopened(first, second)


def test_a_file_has_one_owner(tmp_path):
    async def story():
        settings = PartSettings({}, DEFAULTS, tmp_path)
        engine = await JobsFactory.lookup("sqlite").open(settings, "t.t")
        with pytest.raises(Refused) as refused:
            await JobsFactory.lookup("sqlite").open(settings, "t.t")
        assert refused.value.code == "state_held"
        other = await JobsFactory.lookup("sqlite").open(settings, "t.other")
        await other.close()
        await engine.close()
        assert Path(tmp_path / "jobs" / "t.t.sqlite").exists()

    asyncio.run(story())


def test_a_newer_layout_is_refused_in_a_sentence_and_nothing_is_touched(tmp_path):
    settings = PartSettings({}, DEFAULTS, tmp_path)

    async def story():
        ledger = await SqliteLedger.open(settings)
        made = await ledger.create(record(), b"")
        await ledger._state.apply([Mutation("meta/layout", b"99")])
        await ledger.close()
        for _ in range(2):  # it is let go of again
            with pytest.raises(Refused, match="layout 99; this bema knows up to 1") as refused:
                await SqliteLedger.open(settings)
            assert refused.value.code == "store_newer"
        state = await SqliteEngine.open(settings, "jobs/calls.sqlite")
        assert (await state.get(f"live/{made.id}")) is not None
        await state.close()

    asyncio.run(story())

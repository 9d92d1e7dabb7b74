"""The ledger beyond the laws of every jobs engine: its bounds, what it sweeps, its layout."""

import asyncio
from typing import Any

import msgspec
import pytest

from bema.core.errors import Overloaded, Refused, TooLarge
from bema.core.limits import DEFAULTS
from bema.core.naming import new_call_id
from bema.core.settings import PartSettings
from bema.core.timetable import timetable
from bema.jobs.calls import CallRecord, DurableState
from bema.jobs.engine import JobsFactory
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


def test_a_schedule_with_arguments_that_are_too_large_is_refused(told):
    async def story(engine):
        kept = Schedule(name="a", route="t.t.f", timetable=timetable(every=60), arguments=b"x" * 1025)
        with pytest.raises(TooLarge, match="jobs_payload"):
            await engine.keep_schedule(kept)

    told(story, jobs_payload=1024)


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

"""Requests that meet, and writes that fail between them: each of these was found by the simulation."""

import asyncio
import contextlib
import random
from typing import Any

import pytest

from bema.core.call import Call
from bema.core.errors import BemaError, Conflict, Refused
from bema.core.limits import DEFAULTS
from bema.core.naming import new_call_id
from bema.jobs.assignments import Assignment, Joined
from bema.jobs.calls import CallRecord, CallWait, DurableState
from bema.jobs.journal import JournalEntry
from bema.jobs.ledger import Ledger
from bema.jobs.runner import Runner
from bema.jobs.session import WorkerSession
from bema.state.memory import MemoryEngine
from tests.jobs.members import NAME, Member, Wire, service_of
from tests.jobs.running import owning

NOW = 1_700_000_000_000_000
FULL = Refused("the disk is full", code="state_unwritable")
FAILED = Refused("the disk failed", code="state_failed")


class Failing(MemoryEngine):
    """A state whose next writes fail as `fails` says, after the others had their turn."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: list[Refused] = []

    async def apply(self, mutations):
        await asyncio.sleep(0)
        if self.fails:
            raise self.fails.pop(0)
        return await super().apply(mutations)

    async def get(self, key):
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # answered after what was asked before
        return await super().get(key)


def record(route="t.t.f", **more):
    return CallRecord(id=new_call_id(NOW), route=route, created=NOW, **more)


def test_who_asks_again_while_the_first_cannot_be_written_takes_its_place():
    async def story():
        state = Failing()
        engine = await Ledger.on(state, DEFAULTS)
        state.fails = [FULL]
        asked = record()
        first, second = await asyncio.gather(
            engine.create(asked, b"x"), engine.create(asked, b"x"), return_exceptions=True
        )
        assert first is FULL
        assert second == asked
        assert await engine.arguments(asked.id) == b"x"

    asyncio.run(story())


async def failed_call(engine):
    claimed = await engine.claim((await engine.create(record(), b"")).id, "")
    return await engine.end(claimed.id, claimed.fence, DurableState.FAILED, b"no", now=NOW)


def test_of_two_who_restart_a_call_one_does():
    async def story():
        engine = await Ledger.on(Failing(), DEFAULTS)
        id = (await failed_call(engine)).id
        done = await asyncio.gather(engine.restart(id, 1), engine.restart(id, 1), return_exceptions=True)
        assert sorted(isinstance(one, Conflict) for one in done) == [False, True]
        assert engine.live()[id].fence == 2

    asyncio.run(story())


def test_a_call_that_was_restarted_is_not_counted_as_ended_by_the_next_owner_either():
    async def story():
        state = MemoryEngine()
        engine = await Ledger.on(state, DEFAULTS)
        await engine.restart((await failed_call(engine)).id, 1)
        counted = await state.get("meta/ended")
        assert counted is not None
        assert counted.value == b"0"

    asyncio.run(story())


@pytest.mark.parametrize("state", ["running", "failed"])
def test_only_what_is_paused_is_resumed(state, tmp_path):
    async def story():
        async with owning(tmp_path) as owner:

            @owner.durable
            async def handler(call: Call) -> None:
                if state == "failed":
                    raise ValueError("no")
                await call.step(asyncio.sleep, 60)

            owner.runner.begin()
            id = await owner.submit("handler")
            before = await owner.until(id, DurableState(state))
            with pytest.raises(Conflict, match=f"is {state}, and not paused"):
                await owner.runner.resume(id)
            assert await owner.engine.get(id) == before

    asyncio.run(story())


def test_who_waits_for_a_call_that_is_begun_anew_waits_on(tmp_path):
    async def story():
        async with owning(tmp_path) as owner:
            outcome, tries = owner.engine.outcome, list[int]()

            async def restarted(id):
                if len(tries) == 1:  # it had ended, and is begun anew before its end is read
                    await owner.runner.restart(id)
                owner.engine.outcome = outcome  # type: ignore[method-assign]
                return await outcome(id)

            @owner.durable
            async def handler(call: Call) -> str:
                tries.append(1)
                if len(tries) == 1:
                    raise ValueError("no")
                return "yes"

            owner.runner.begin()
            id = await owner.submit("handler")
            await owner.until(id, DurableState.FAILED)
            owner.engine.outcome = restarted  # type: ignore[method-assign]
            assert await owner.runner.result(id) == "yes"

    asyncio.run(story())


def test_a_call_that_was_claimed_for_a_worker_while_it_was_lost_goes_on_with_another(tmp_path):
    async def story():
        lost = WorkerSession(1, "v1", ["t.t.elsewhere"], 60)
        async with owning(tmp_path) as owner:
            claim = owner.engine.claim

            async def claimed(id, version):
                found = await claim(id, version)
                owner.engine.claim = claim  # type: ignore[method-assign]
                owner.runner.leave(lost)
                lost.lose()
                return found

            owner.engine.claim = claimed  # type: ignore[method-assign]
            owner.runner.join(lost)
            owner.runner.begin()
            asked = record(route="t.t.elsewhere")
            await owner.runner.submit(asked, b"\x80")
            other = WorkerSession(2, "v1", ["t.t.elsewhere"], 60)
            owner.runner.join(other)
            async with asyncio.timeout(10):
                task = await other.tasks.get()
            assert isinstance(task, Assignment)
            assert task.record.id == asked.id

    asyncio.run(story())


@pytest.mark.parametrize("asked", ["submit", "signal", "cancel"])
def test_whoever_meets_a_failed_disk_first_ends_the_owner(asked):
    async def story():
        state, told = Failing(), list[BemaError]()
        runner = Runner(await Ledger.on(state, DEFAULTS))
        runner.failed = told.append
        waiting = await runner.submit(record(due=2**60), b"")
        state.fails = [FAILED]
        with pytest.raises(Refused):
            if asked == "submit":
                await runner.submit(record(), b"")
            elif asked == "signal":
                await runner.signal(waiting.id, "go", b"\x01")
            else:
                await runner.cancel(waiting.id)
        assert told == [FAILED]
        await runner.close()

    asyncio.run(story())


def test_who_leaves_while_its_call_is_written_leaves_one_that_runs_and_is_found_again(tmp_path):
    async def story():
        async with owning(tmp_path) as owner:
            ran = asyncio.Event()

            @owner.durable
            async def handler(call: Call) -> str:
                ran.set()
                return "yes"

            owner.runner.begin()
            asked = record(route="t.t.handler")
            asking = asyncio.ensure_future(owner.runner.submit(asked, b"\x80"))
            while asked.id not in owner.engine.live():
                await asyncio.sleep(0)
            asking.cancel()
            async with asyncio.timeout(10):
                await ran.wait()
                assert (await owner.runner.submit(asked, b"\x80")).id == asked.id
                assert await owner.runner.result(asked.id) == "yes"

    asyncio.run(story())


@contextlib.asynccontextmanager
async def lent(folder):
    """An owner, the service in front of it, a worker of another process, and a call that the worker was given."""
    async with owning(folder) as owner:
        jobs = service_of(owner.runner)
        owner.runner.begin()
        worker: Any = jobs.work(NAME, "v1", ["t.t.elsewhere"])
        asked = record(route="t.t.elsewhere")
        await owner.runner.submit(asked, b"\x80")
        assert isinstance(await anext(worker), Joined)
        assignment = await anext(worker)
        assert isinstance(assignment, Assignment)
        yield owner, jobs, worker, assignment.record


def test_what_a_worker_handed_in_last_is_written_though_it_was_lost_meanwhile(tmp_path):
    async def story():
        async with lent(tmp_path) as (owner, jobs, worker, call), asyncio.timeout(10):
            ending = asyncio.ensure_future(jobs.end(NAME, call, DurableState.DONE, b"\x01"))
            while call.id in owner.engine.live():
                await asyncio.sleep(0)
            ending.cancel()
            await worker.aclose()
            ended, payload = await owner.runner.outcome(call.id)
            assert (ended.state, ended.attempts, payload) == (DurableState.DONE, 1, b"\x01")
            assert call.id not in owner.engine.live()

    asyncio.run(story())


def test_a_signal_that_a_worker_took_last_is_not_given_to_the_next(tmp_path):
    async def story():
        async with lent(tmp_path) as (owner, jobs, worker, call), asyncio.timeout(10):
            next_worker: Any = jobs.work(NAME, "v1", ["t.t.elsewhere"])
            await owner.runner.signal(call.id, "go", b"\x01")
            offered = await anext(worker)
            ((key, _, _),) = await owner.engine.signals(call.id)
            (session,) = jobs._sessions.values()
            entry = JournalEntry(order=1, place="1", kind="signal", name="go", value=b"\x01")
            taking = asyncio.ensure_future(
                jobs.complete(NAME, call.id, call.fence, entry, session.number, key, offered.number)
            )
            await asyncio.sleep(0)
            taking.cancel()
            await worker.aclose()
            await anext(next_worker)
            again = await anext(next_worker)
            assert (again.entries, again.signals) == ([entry], [])
            await owner.engine.signals(call.id)  # answered after what was asked before
            (session,) = jobs._sessions.values()
            assert session.tasks.empty()
            await next_worker.aclose()

    asyncio.run(story())


@pytest.mark.parametrize("how", ["answer", "signal"])
def test_an_answer_that_could_not_be_written_is_given_to_the_next_run(how, tmp_path):
    async def story():
        async with owning(tmp_path) as owner, asyncio.timeout(10):
            complete, failures = owner.engine.complete, [FULL]

            def failing(*arguments):
                if failures:
                    raise failures.pop()
                return complete(*arguments)

            @owner.durable
            async def handler(call: Call) -> int:
                return await (call.ask(int) if how == "answer" else call.signal("go", int))

            owner.runner.begin()
            id = await owner.submit("handler")
            await owner.until(id, DurableState.ASKING)
            owner.engine.complete = failing  # type: ignore[method-assign]
            if how == "answer":
                await owner.runner.answer(id, b"\x07")
            else:
                await owner.runner.signal(id, "go", b"\x07")
            assert await owner.runner.result(id) == 7
            assert not failures

    asyncio.run(story())


def test_what_a_call_was_woken_for_is_given_to_a_worker_with_it(tmp_path):
    async def story():
        async with lent(tmp_path) as (owner, jobs, worker, call), asyncio.timeout(10):
            (session,) = jobs._sessions.values()
            waits = [CallWait(place="1", kind="ask", name="int")]
            await jobs.suspend(NAME, call, DurableState.ASKING, waits)
            await jobs.over(session.number, call.id, [])
            answering = asyncio.ensure_future(owner.runner.answer(call.id, b"\x07"))
            again = await anext(worker)
            assert [offered.payload for offered in again.offers] == [b"\x07"], (
                "told apart, it may come when the call is put away"
            )
            answering.cancel()
            await worker.aclose()

    asyncio.run(story())


def test_a_call_whose_worker_is_lost_while_it_undoes_its_steps_undoes_the_rest(tmp_path):
    async def story():
        undoing, undone = asyncio.Event(), list[int]()

        async def undo(number: int) -> None:
            undone.append(number)
            undoing.set()
            if len(undone) == 1:
                await asyncio.Event().wait()

        async def handler(call: Call) -> None:
            call.on_cancel(undo, 1)
            call.on_cancel(undo, 2)
            await call.ask(int)

        async with owning(tmp_path) as owner, asyncio.timeout(10):
            owner.durable(handler)
            jobs, ends = service_of(owner.runner), list[str]()
            end = jobs.end

            async def noted(*arguments: Any) -> None:
                ends.append("end")
                await end(*arguments)

            jobs.end = noted  # type: ignore[method-assign, assignment]
            wire = Wire(jobs, random.Random(1), 0)
            member = Member(wire, DEFAULTS, owner.runner.clock)
            member.endpoints["t.t.handler"] = owner.runner.endpoints.pop("t.t.handler")
            owner.runner.begin()
            member.begin()
            asked = record(route="t.t.handler")
            await owner.runner.submit(asked, b"\x80")
            await owner.until(asked.id, DurableState.ASKING)
            await owner.runner.cancel(asked.id)
            await undoing.wait()
            wire.cut()
            await owner.until(asked.id, DurableState.CANCELLED)
            assert (undone, ends) == ([2, 2, 1], ["end"])
            await member.close()

    asyncio.run(story())

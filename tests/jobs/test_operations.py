"""The operations on durable calls that doors wait with: how a call ended, and what happened to it meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bema.core.call import Call
from bema.core.errors import Conflict, DeadlineExceeded, Disconnected, NotFound
from bema.jobs.calls import DurableState
from bema.jobs.operations import CallOperations, until_stopping
from bema.wire.rpc import failures
from bema.wire.values import codecs
from tests.jobs.running import owning


def told(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A story of one owner of durable calls, and of the operations on them."""

    def run(tmp_path):
        async def story():
            async with owning(tmp_path) as owner, asyncio.timeout(20):
                await test(owner, CallOperations(owner.runner))

        asyncio.run(story())

    run.__name__ = test.__name__
    return run


async def double(n: int) -> int:
    return n * 2


def asking(owner: Any) -> None:
    @owner.durable
    async def order(n: int, call: Call) -> int:
        doubled = await call.step(double, n)
        more = await call.ask(int, "how many more?")
        return await call.step(double, doubled + more)

    owner.runner.begin()


@told
async def test_the_outcome_of_a_call_is_its_result_or_that_it_runs_on(owner, calls):
    asking(owner)
    id = await owner.submit("order", n=3)
    found = await calls.outcome(id, patience=0.01)
    assert (found["payload"], found["call"]["id"]) == (None, id)
    assert (await calls.outcome(id))["payload"] is None
    await owner.until(id, DurableState.ASKING)
    waiting = asyncio.create_task(calls.outcome(id, patience=10))
    await calls.answer(id, 1)
    found = await waiting
    assert (found["call"]["state"], codecs.unpack(found["payload"])) == ("done", 14)


@told
async def test_a_failure_is_data_so_that_a_timeout_of_the_call_is_not_taken_for_one_of_the_wait(owner, calls):
    @owner.durable
    async def late(call: Call) -> None:
        async with call.timeout(0.01):
            await call.ask(int)

    owner.runner.begin()
    found = await calls.outcome(await owner.submit("late"), patience=10)
    assert found["call"]["state"] == "failed"
    assert isinstance(failures.rebuild(failures.read_failure(found["payload"]), {}), DeadlineExceeded)


@told
async def test_the_outcome_of_a_cancelled_call_is_a_conflict(owner, calls):
    asking(owner)
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.ASKING)
    waiting = asyncio.create_task(calls.outcome(id, patience=10))
    await calls.cancel(id)
    with pytest.raises(Conflict) as cancelled:
        await waiting
    assert cancelled.value.code == "call_cancelled"
    with pytest.raises(NotFound):
        await calls.outcome("0" * 21)


@told
async def test_changes_are_told_once_each_from_any_place_on(owner, calls):
    asking(owner)
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.ASKING)
    first = await calls.changes(id)
    assert [step["what"] for step in first["steps"]] == ["step 1 double"]
    assert (first["last"], first["call"]["state"], first["ended"]) == (1, "asking", False)
    waiting = asyncio.create_task(calls.changes(id, after=1, seen=first["mark"], patience=10))
    await calls.answer(id, 1)
    seen, told, found = first["mark"], [], await waiting
    while True:
        told += [step["what"] for step in found["steps"]]
        if found["ended"]:
            break
        assert found["steps"] or found["mark"] != seen
        seen = found["mark"]
        found = await calls.changes(id, after=found["last"], seen=seen, patience=10)
    assert told == ["ask 2 int", "step 3 double"]
    again = await calls.changes(id, after=2, seen=found["mark"], patience=10)
    assert [step["order"] for step in again["steps"]] == [3]
    assert "result" not in again["steps"][0], "values are for those who may see the result"


@told
async def test_who_waits_for_changes_gets_nothing_new_when_the_patience_ends(owner, calls):
    asking(owner)
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.ASKING)
    first = await calls.changes(id)
    nothing = await calls.changes(id, after=1, seen=first["mark"], patience=0.05)
    assert (nothing["steps"], nothing["mark"]) == ([], first["mark"])
    assert not owner.engine._watched, "nobody watches any more"


@told
async def test_steps_that_are_done_anew_are_told_as_such(owner, calls):
    @owner.durable
    async def order(n: int, call: Call) -> int:
        await call.step(double, n)
        await call.step(double, n)
        raise ValueError("no")

    owner.runner.begin()
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.FAILED)
    waiting = asyncio.create_task(calls.changes(id, after=2, seen="queued", patience=10))
    assert (await waiting)["last"] == 2
    await owner.runner.engine.restart(id, 2)
    found = await calls.changes(id, after=2)
    assert (found["restarted"], found["last"], found["steps"]) == (True, 1, [])


@told
async def test_an_owner_that_stops_sends_those_who_wait_to_the_next(owner, calls):
    asking(owner)
    stopping = asyncio.Event()
    answer = until_stopping(stopping, calls)
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.ASKING)
    mark = (await calls.changes(id))["mark"]
    waiting = [
        asyncio.ensure_future(answer(Call(arguments={"operation": operation, "arguments": {"id": id, **more}})))
        for operation, more in (
            ("outcome", {"patience": 10}),
            ("changes", {"after": 1, "seen": mark, "patience": 10}),
        )
    ]
    await asyncio.sleep(0)
    stopping.set()
    for task in waiting:
        with pytest.raises(Disconnected):
            await task


@told
async def test_the_same_arguments_in_another_order_are_the_same_call(owner, calls):
    @owner.durable
    async def add(a: int, b: int, call: Call) -> int:
        return a + b

    owner.runner.begin()
    first = await calls.later("t.t.add", codecs.pack({"a": 1, "b": 2}), key="sum")
    assert await calls.later("t.t.add", codecs.pack({"b": 2, "a": 1}), key="sum") == first
    with pytest.raises(Conflict):
        await calls.later("t.t.add", codecs.pack({"a": 2, "b": 2}), key="sum")

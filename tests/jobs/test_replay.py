"""Replays: whatever dies, and whenever, a call comes to the result that it would have come to, and each step is recorded once."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from bema.core.call import Call
from bema.core.durable import Retry
from bema.jobs.calls import DurableState
from tests.jobs.running import Owner, owning

Program = Callable[[Call, Callable[[int], Any]], Any]


async def in_turn(call, work):
    return [await call.step(work, n) for n in range(5)]


async def gathered(call, work):
    return await asyncio.gather(*(call.step(work, n) for n in range(5)))


async def branches(call, work):
    async def branch(n):
        first = await call.step(work, n)
        return first, await call.step(work, first + 10)

    return [list(one) for one in await asyncio.gather(*(branch(n) for n in range(4)))]


async def grouped(call, work):
    found = []

    async def branch(n):
        found.append(await call.step(work, n))
        found.append(await call.step(work, n + 10))

    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(branch(n))
    return found  # in the order of completion, which a replay repeats


async def first_completed(call, work):
    tasks = [asyncio.ensure_future(call.step(work, n)) for n in range(4)]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    winners = sorted(task.result() for task in done)
    for task in rest:
        task.cancel()
    await asyncio.wait(rest)
    return [winners, [task.cancelled() for task in rest], await call.step(work, 100 + winners[0])]


async def as_they_come(call, work):
    found = []
    # tasks, for `as_completed` begins coroutines in the order of a set
    for next_one in asyncio.as_completed([asyncio.ensure_future(call.step(work, n)) for n in range(4)]):
        found.append(await next_one)
        found.append(await call.step(work, 50 + found[-1]))
    return found


async def timed(call, work):
    try:
        async with call.timeout(0.01):
            await call.signal("never")
    except TimeoutError:
        return [await call.step(work, 1), call.random(), call.now() > 0]


async def queued(call, work):
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def produce():
        for n in range(4):
            await queue.put(await call.step(work, n))
        await queue.put(-1)

    producing = asyncio.ensure_future(produce())
    found = []
    while (n := await queue.get()) >= 0:
        found.append(await call.step(work, n + 20))
    await producing
    return found


PROGRAMS = [in_turn, gathered, branches, grouped, first_completed, as_they_come, timed, queued]


def served(owner: Owner, program: Program, latencies: random.Random, done: Counter[int]) -> None:
    async def work(n: int) -> int:
        await asyncio.sleep(latencies.random() * 0.003)
        done[n] += 1
        return n

    @owner.durable
    async def handler(call: Call) -> Any:
        return await program(call, work)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("seed", range(6))
def test_a_call_that_is_put_away_again_and_again_comes_to_one_result(program, seed, tmp_path):
    """Its owner ends at a moment of the seed's; the next one takes over with other latencies, until the call has ended."""
    random_moments = random.Random(seed)
    done: Counter[int] = Counter()

    async def story():
        id, histories = "", []
        for owner_number in range(200):
            async with owning(tmp_path) as owner:
                served(owner, program, random.Random(seed * 1000 + owner_number), done)
                id = id or await owner.submit("handler")
                owner.runner.begin()
                try:
                    async with asyncio.timeout(0.002 + random_moments.random() * 0.01):
                        result = await owner.runner.result(id)
                except TimeoutError:
                    histories.append([(e.place, e.value) for e in (await owner.engine.journal(id)).entries])
                    continue
                journal = await owner.engine.journal(id)
                # what was written once stood, whatever came after
                final = [(e.place, e.value) for e in journal.entries]
                assert all(final[: len(history)] == history for history in histories)
                assert len({e.place for e in journal.entries}) == len(journal.entries)
                return result, id
        raise AssertionError("it never came to its end")

    result, id = asyncio.run(story())

    async def again():
        """The same history, replayed by an owner that would give other results, gives the same."""
        async with owning(tmp_path) as owner:
            assert await owner.engine.get(id)
            served(owner, program, random.Random(99), done)
            journal = await owner.engine.journal(id)
            last = journal.entries[-1].order
            before = Counter(done)
            await owner.engine.restart(id, last + 1) if (
                await owner.engine.get(id)
            ).state is DurableState.FAILED else None
            assert before == done
            assert await owner.runner.result(id) == result

    asyncio.run(again())


@pytest.mark.parametrize(
    "changed", ["another step", "other arguments", "fewer steps", "more steps first", "another type"]
)
def test_code_that_disagrees_with_the_history_pauses_the_call_and_names_both(changed, tmp_path):
    async def one(n: int) -> int:
        return n

    async def two(n: int) -> int:
        return n

    async def textual(n: int) -> str:
        return str(n)

    textual.__qualname__ = one.__qualname__

    async def before(call):
        await call.step(one, 1)
        await call.step(two, 2)
        await call.signal("go")

    async def after(call):
        if changed == "another step":
            await call.step(two, 1)
        elif changed == "other arguments":
            await call.step(one, 7)
        elif changed == "fewer steps":
            return
        elif changed == "more steps first":
            await call.step(two, 0)
            await call.step(one, 1)
        else:
            await call.step(textual, 1)

    says = {
        "another step": ("step 1 test_code", "one", "two"),
        "other arguments": ("with other arguments",),
        "fewer steps": ("the handler ended, and its history goes on with step 1",),
        "more steps first": ("one", "two"),
        "another type": ("does not fit what the code expects",),
    }[changed]

    async def story():
        async with owning(tmp_path) as owner:
            owner.durable(named(before))
            owner.runner.begin()
            id = await owner.submit("handler")
            await owner.until(id, DurableState.ASKING)
        async with owning(tmp_path) as owner:
            owner.durable(named(after))
            owner.runner.begin()
            await owner.runner.signal(id, "go", b"\xc0")
            paused = await owner.until(id, DurableState.PAUSED)
            assert paused.code == "history_mismatch"
            assert all(part in paused.why for part in says if not part.startswith("step 1 test")), paused.why
        async with owning(tmp_path) as owner:  # the code is brought back: nothing was lost
            owner.durable(named(before))
            owner.runner.begin()
            await owner.runner.resume(id)
            await owner.runner.result(id)

    asyncio.run(story())


def named(program):
    async def handler(call: Call) -> Any:
        return await program(call)

    return handler


def test_a_retry_goes_on_counting_after_its_owner_died(tmp_path):
    tries = []

    def fails() -> None:
        tries.append(1)
        raise ConnectionError

    async def program(call):
        await call.step(fails, retry=Retry(attempts=3, first=1.3, most=1.3))

    async def story():
        async with owning(tmp_path) as owner:
            owner.durable(named(program))
            owner.runner.begin()
            id = await owner.submit("handler")
            sleeping = await owner.until(id, DurableState.SLEEPING)
            assert sleeping.waits[0].tries == 1
        async with owning(tmp_path) as owner:
            owner.durable(named(program))
            owner.runner.begin()
            assert (await owner.until(id, DurableState.PAUSED)).code == "retries_exhausted"
        assert len(tries) == 3

    asyncio.run(story())


def test_a_cancellation_is_replayed_where_it_came(tmp_path):
    done = []

    async def note(what: str) -> str:
        done.append(what)
        if what == "undo" and done.count("undo") == 1:
            await asyncio.sleep(3600)
        return what

    async def program(call):
        await call.step(note, "do")
        call.on_cancel(note, "undo")
        try:
            await call.signal("never")
        finally:
            if not call.suspending:
                await call.step(note, "tidy")

    async def story():
        async with owning(tmp_path) as owner:
            owner.durable(named(program))
            owner.runner.begin()
            id = await owner.submit("handler")
            await owner.until(id, DurableState.ASKING)
            await owner.runner.cancel(id)
            async with asyncio.timeout(5):
                while "undo" not in done:
                    await asyncio.sleep(0.005)
        async with owning(tmp_path) as owner:  # it died in the middle of undoing
            owner.durable(named(program))
            owner.runner.begin()
            await owner.until(id, DurableState.CANCELLED)
        assert done == ["do", "tidy", "undo", "undo"]

    asyncio.run(story())

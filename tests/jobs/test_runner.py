"""Durable calls as their handlers see them: what is done once, what is waited for, and what happens when it goes wrong."""

import asyncio
import functools
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pydantic
import pytest

from bema.core.call import Call
from bema.core.durable import Queue, Retry
from bema.core.errors import BemaError, Conflict, Invalid, NotFound, Refused
from bema.jobs.calls import DurableState
from tests.jobs.running import owning

SOON = Retry(attempts=3, first=0.01, most=0.01)


def told(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A story of one owner of durable calls."""

    def run(tmp_path):
        async def story():
            async with owning(tmp_path) as owner:
                await test(owner)

        asyncio.run(story())

    run.__name__ = test.__name__
    return run


def packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


async def double(n: int) -> int:
    return n * 2


@told
async def test_a_handler_runs_its_steps_and_answers(owner):
    @owner.durable
    async def order(n: int, call: Call) -> list[int]:
        one = await call.step(double, n)
        return [one, *await asyncio.gather(call.step(double, one), call.step(double, one + 1))]

    owner.runner.begin()
    assert await owner.call("order", n=3) == [6, 12, 14]


@told
async def test_steps_leave_nothing_to_the_collector_of_cycles(owner):
    @owner.durable
    async def many(count: int, call: Call) -> int:
        number = 1
        for _ in range(count):
            number = await call.step(double, number) % 1000
        return number

    owner.runner.begin()
    await owner.call("many", count=1)
    gc.collect()
    gc.disable()
    try:
        await owner.call("many", count=300)
        # what the call itself leaves is no more for more steps
        assert gc.collect() < 300
    finally:
        gc.enable()


class Point(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    text: str


@told
async def test_a_result_comes_back_as_its_declared_type(owner):
    async def point() -> Point:
        return Point(1)

    def model(text: str) -> Model:
        return Model(text=text)

    @owner.durable
    async def typed(call: Call) -> Point:
        assert await call.step(model, "a") == Model(text="a")
        return await call.step(point)

    owner.runner.begin()
    assert await owner.call("typed") == Point(1)


@told
async def test_what_a_step_raised_is_raised_in_the_handler_and_ends_the_call(owner):
    def fails() -> None:
        raise ValueError("no stock")

    @owner.durable
    async def caught(call: Call) -> str:
        try:
            await call.step(fails)
        except ValueError as error:
            return f"caught {error}"
        return "not reached"

    @owner.durable
    async def not_caught(call: Call) -> None:
        await call.step(fails)

    owner.runner.begin()
    assert await owner.call("caught") == "caught no stock"
    with pytest.raises(ValueError, match="no stock"):
        await owner.call("not_caught")


@told
async def test_a_step_is_tried_again_and_its_result_is_recorded_once(owner):
    tries = []

    async def flaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return len(tries)

    @owner.durable
    async def patient(call: Call) -> int:
        return await call.step(flaky, retry=SOON)

    owner.runner.begin()
    id = await owner.submit("patient")
    assert await owner.runner.result(id) == 3
    (entry,) = (await owner.engine.journal(id)).entries
    assert entry.tries == 3


@told
async def test_exhausted_tries_pause_the_call_and_a_resume_goes_on(owner):
    broken = True

    def dial() -> str:
        if broken:
            raise ConnectionError("down")
        return "up"

    @owner.durable
    async def calls_out(call: Call) -> str:
        first = await call.step(double, 4)
        return f"{first} {await call.step(dial, retry=SOON)}"

    owner.runner.begin()
    id = await owner.submit("calls_out")
    paused = await owner.until(id, DurableState.PAUSED)
    assert paused.code == "retries_exhausted"
    assert "step 2 test_exhausted" not in paused.why
    assert "dial failed 3 times, the last time with ConnectionError: down" in paused.why
    with pytest.raises(Conflict) as refused:
        await owner.runner.result(id)
    assert refused.value.code == "call_paused"
    broken = False
    await owner.runner.resume(id)
    assert await owner.runner.result(id) == "8 up"


@told
async def test_a_restart_from_a_step_does_that_one_again(owner):
    done = []

    async def note(what: str) -> str:
        done.append(what)
        if what == "b" and done.count("b") == 1:
            raise ValueError("wrong")
        return what

    @owner.durable
    async def notes(call: Call) -> list[str]:
        return [await call.step(note, what) for what in "abc"]

    owner.runner.begin()
    id = await owner.submit("notes")
    await owner.until(id, DurableState.FAILED)
    await owner.runner.restart(id, 2)
    assert await owner.runner.result(id) == ["a", "b", "c"]
    assert done == ["a", "b", "b", "c"]


@told
async def test_a_call_that_sleeps_holds_no_task(owner):
    cleaned = []

    @owner.durable
    async def naps(call: Call) -> str:
        try:
            await call.sleep(3600)
        finally:
            cleaned.append(call.suspending)
        return "rested"

    owner.runner.begin()
    ids = [await owner.submit("naps") for _ in range(200)]
    for id in ids:
        await owner.until(id, DurableState.SLEEPING)
    assert cleaned == [True] * 200
    assert not [task for task in asyncio.all_tasks() if "naps" in task.get_name()]


@told
async def test_a_short_sleep_and_a_long_one_end_in_their_time(owner):
    @owner.durable
    async def naps(call: Call) -> float:
        began = call.now()
        await call.sleep(0.02)
        await asyncio.gather(call.sleep(1.2), call.sleep(1.1))
        return (call.now() - began) / 1_000_000

    owner.runner.begin()
    assert 1.2 <= await owner.call("naps") < 5


@told
async def test_asyncios_own_timers_are_refused_in_a_sentence(owner):
    @owner.durable
    async def sleeps(call: Call) -> None:
        await asyncio.sleep(1)

    @owner.durable
    async def times_out(call: Call) -> None:
        async with asyncio.timeout(1):
            await call.step(double, 1)

    @owner.durable
    async def reads(call: Call) -> None:
        await asyncio.open_connection("127.0.0.1", 1)

    @owner.durable
    async def threads(call: Call) -> None:
        await asyncio.to_thread(print)

    @owner.durable
    async def hangs(call: Call) -> None:
        await asyncio.get_running_loop().create_future()

    owner.runner.begin()
    for name, says in (
        ("sleeps", "a timer of asyncio"),
        ("times_out", "a timer of asyncio"),
        ("reads", "event loop"),
        ("threads", "event loop"),
    ):
        with pytest.raises(BemaError, match=says) as refused:
            await owner.call(name)
        assert refused.value.code == "not_replayable", name
        assert "call.step" in refused.value.fix
    paused = await owner.until(await owner.submit("hangs"), DurableState.PAUSED)
    assert paused.code == "not_replayable"


@told
async def test_a_question_waits_for_an_answer_of_its_type(owner):
    @owner.durable
    async def asks(call: Call) -> str:
        size = await call.ask(int, "how many?")
        point = await call.ask(Point, "where?")
        return f"{size} at {point.x}"

    owner.runner.begin()
    id = await owner.submit("asks")
    (wait,) = (await owner.until(id, DurableState.ASKING)).waits
    assert (wait.kind, wait.name, wait.prompt, wait.answer) == ("ask", "int", "how many?", {"type": "integer"})
    with pytest.raises(Invalid, match="Expected `int`, got `str`"):
        await owner.runner.answer(id, packed("many"))
    await owner.runner.answer(id, packed(3))
    await owner.until(id, DurableState.ASKING)
    await owner.runner.answer(id, packed({"x": 5}))
    assert await owner.runner.result(id) == "3 at 5"
    with pytest.raises(Conflict):
        await owner.runner.answer(id, packed(3))


@told
async def test_an_answer_that_nobody_asked_for_is_refused(owner):
    @owner.durable
    async def naps(call: Call) -> None:
        await call.sleep(100)

    owner.runner.begin()
    id = await owner.submit("naps")
    await owner.until(id, DurableState.SLEEPING)
    with pytest.raises(Conflict, match="asks nothing"):
        await owner.runner.answer(id, packed(1))
    assert (await owner.until(id, DurableState.SLEEPING)).waits[0].kind == "sleep"


@told
async def test_signals_are_kept_and_taken_in_order(owner):
    @owner.durable
    async def counts(call: Call) -> list[int]:
        await call.step(double, 1)
        return [await call.signal("n", int) for _ in range(3)]

    owner.runner.begin()
    id = await owner.submit("counts", due=2**60)
    for n in (1, 2):
        await owner.runner.signal(id, "n", packed(n))
    await owner.until(id, DurableState.QUEUED, DurableState.ASKING, DurableState.RUNNING)
    await owner.runner.signal(id, "n", packed(3))
    assert await owner.runner.result(id) == [1, 2, 3]


@told
async def test_a_cancelled_call_cleans_up_and_undoes_what_it_recorded(owner):
    seen = []

    async def book(what: str) -> str:
        seen.append(f"book {what}")
        return what

    async def unbook(what: str) -> None:
        seen.append(f"unbook {what}")

    @owner.durable
    async def trip(call: Call) -> None:
        try:
            for what in ("flight", "hotel"):
                await call.step(book, what)
                call.on_cancel(unbook, what)
            await call.signal("paid")
        finally:
            if not call.suspending:
                seen.append("cleaned")

    owner.runner.begin()
    id = await owner.submit("trip")
    await owner.until(id, DurableState.ASKING)
    await owner.runner.cancel(id)
    await owner.until(id, DurableState.CANCELLED)
    assert seen == ["book flight", "book hotel", "cleaned", "unbook hotel", "unbook flight"]
    with pytest.raises(Conflict) as refused:
        await owner.runner.result(id)
    assert refused.value.code == "call_cancelled"


@told
async def test_a_call_that_has_not_begun_is_cancelled_at_once(owner):
    @owner.durable
    async def later(call: Call) -> None: ...

    owner.runner.begin()
    id = await owner.submit("later", due=2**60)
    assert (await owner.runner.cancel(id)).state is DurableState.CANCELLED


@told
async def test_a_timeout_of_the_call_ends_what_takes_too_long(owner):
    async def slow() -> str:
        await asyncio.sleep(30)
        return "late"

    @owner.durable
    async def hurried(call: Call) -> str:
        try:
            async with call.timeout(0.05):
                return await call.step(slow)
        except TimeoutError:
            return f"gave up, then {await call.step(double, 2)}"

    owner.runner.begin()
    assert await owner.call("hurried") == "gave up, then 4"


@told
async def test_what_cannot_be_recorded_fails_the_step(owner):
    def connection() -> Any:
        return object()

    @owner.durable
    async def holds(call: Call) -> None:
        await call.step(connection)

    owner.runner.begin()
    with pytest.raises(BemaError, match="the result of step 1 connection") as refused:
        await owner.call("holds")
    assert refused.value.code == "not_recordable"


@told
async def test_calls_of_a_group_run_one_after_the_other_and_others_beside_them(owner):
    running, most = 0, 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    @owner.durable
    async def serial(call: Call) -> None:
        await call.step(work)

    owner.runner.begin()
    ids = [await owner.submit("serial", group="account 1") for _ in range(6)]
    for id in ids:
        await owner.runner.result(id)
    assert most == 1
    await asyncio.gather(*(owner.call("serial") for _ in range(6)))
    assert most > 1


@told
async def test_the_more_important_call_goes_first(owner):
    order = []

    @owner.durable
    async def noted(n: int, call: Call) -> None:
        order.append(n)

    ids = [await owner.submit("noted", n=n, priority=n) for n in range(5)]
    owner.runner.begin()
    for id in ids:
        await owner.runner.result(id)
    assert order == [4, 3, 2, 1, 0]


@told
async def test_a_poisoned_call_holds_up_no_other(owner):
    @owner.durable
    async def poisoned(call: Call) -> None:
        raise RuntimeError("every time")

    @owner.durable
    async def fine(call: Call) -> int:
        return await call.step(double, 1)

    owner.runner.begin()
    bad = [await owner.submit("poisoned") for _ in range(50)]
    assert await owner.call("fine") == 2
    for id in bad:
        assert (await owner.until(id, DurableState.FAILED)).why == "RuntimeError: every time"


@told
async def test_a_call_of_an_unknown_route_or_id_is_not_found(owner):
    owner.runner.begin()
    with pytest.raises(NotFound):
        await owner.runner.result("0" * 21)


@told
async def test_a_call_without_a_journal_refuses_what_only_durable_ones_have(owner):
    with pytest.raises(Refused) as refused:
        await Call("t.t.plain").step(double, 1)
    assert refused.value.code == "not_durable"


def test_a_full_disk_loses_nothing_and_the_call_goes_on(tmp_path):
    async def story():
        async with owning(tmp_path) as owner:
            apply, full, fills = owner.state.apply, False, 0

            async def failing(mutations):
                if full:
                    raise Refused("the disk is full", code="state_unwritable")
                return await apply(mutations)

            owner.state.apply = failing  # type: ignore[method-assign]

            async def fill() -> str:
                nonlocal full, fills
                fills += 1
                full = fills == 1  # its own result cannot be written, so it is run once more
                asyncio.get_running_loop().call_later(0.3, empty)
                return "filled"

            def empty() -> None:
                nonlocal full
                full = False

            @owner.durable
            async def writes(call: Call) -> str:
                return f"{await call.step(fill)} {await call.step(double, 1)}"

            owner.runner.begin()
            assert await owner.call("writes") == "filled 2"
            assert fills == 2

    asyncio.run(story())


def test_a_step_whose_result_is_too_large_pauses_the_call_and_a_higher_limit_lets_it_go_on(tmp_path):
    async def large() -> str:
        return "x" * 5000

    async def story():
        for limit in (2048, 65536):
            async with owning(tmp_path, jobs_payload=limit) as owner:

                @owner.durable
                async def fetch(call: Call) -> int:
                    return len(await call.step(large))

                owner.runner.begin()
                if limit == 2048:
                    id = await owner.submit("fetch")
                    paused = await owner.until(id, DurableState.PAUSED)
                    assert (paused.code, "jobs_payload" in paused.why) == ("too_large", True)
                else:
                    await owner.runner.resume(id)
                    assert await owner.runner.result(id) == 5000

    asyncio.run(story())


@told
async def test_an_answer_that_cannot_travel_is_the_failure_of_its_call(owner):
    @owner.durable
    async def odd(call: Call) -> int:
        return object()  # type: ignore[return-value]

    owner.runner.begin()
    with pytest.raises(BemaError) as failed:
        await owner.call("odd")
    assert failed.value.code == "bad_answer"


def test_arguments_that_the_code_takes_no_more_pause_the_call(tmp_path):
    async def story():
        async with owning(tmp_path) as owner:

            @owner.durable
            async def take(n: int, call: Call) -> int:
                return n

            id = await owner.submit("take", n=1)
        async with owning(tmp_path) as owner:

            @owner.durable
            async def take(n: list[str], call: Call) -> int:
                return len(n)

            owner.runner.begin()
            paused = await owner.until(id, DurableState.PAUSED)
            assert paused.code == "history_mismatch"
            assert "its arguments do not fit t.t.take" in paused.why

    asyncio.run(story())


@told
async def test_a_plain_step_runs_in_a_thread_and_holds_up_nobody(owner):
    free = threading.Event()

    def blocks() -> str:
        assert free.wait(10)
        return threading.current_thread().name

    @owner.durable
    async def work(call: Call) -> str:
        return await call.step(blocks)

    owner.runner.begin()
    working = asyncio.ensure_future(owner.call("work"))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.01, free.set)  # the loop turns, or it would never be set
    assert await working != threading.current_thread().name


@told
async def test_steps_may_be_partials_methods_and_objects_that_are_called(owner):
    class Till:
        async def charge(self, number: int) -> str:
            return f"charged {number}"

        async def __call__(self, number: int) -> str:
            return f"called {number}"

    till = Till()

    @owner.durable
    async def work(call: Call) -> list[str]:
        partial = functools.partial(till.charge, 1)
        return [await call.step(partial), await call.step(till.charge, 2), await call.step(till, 3)]

    owner.runner.begin()
    assert await owner.call("work") == ["charged 1", "charged 2", "called 3"]


@told
async def test_an_endpoint_runs_as_many_calls_at_once_as_its_queue_says(owner):
    running = most = 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    @owner.durable(Queue(concurrency=2))
    async def few(call: Call) -> None:
        await call.step(work)

    @owner.durable
    async def others(call: Call) -> int:
        return await call.step(double, 4)

    owner.runner.begin()
    ids = [await owner.submit("few", priority=1) for _ in range(9)]
    assert await owner.call("others") == 8, "others are not held up"
    for id in ids:
        await owner.runner.result(id)
    assert most == 2


@told
async def test_a_call_that_sleeps_leaves_its_turn_to_others(owner):
    @owner.durable(Queue(concurrency=1))
    async def waits(seconds: int, call: Call) -> str:
        await call.sleep(seconds)
        return "rested"

    owner.runner.begin()
    asleep = await owner.submit("waits", seconds=3600)
    await owner.until(asleep, DurableState.SLEEPING)
    assert await owner.call("waits", seconds=0) == "rested"


@told
async def test_calls_begin_no_faster_than_their_rate(owner):
    begun = []

    async def note() -> None:
        begun.append(asyncio.get_running_loop().time())

    @owner.durable(Queue(rate=2, per=0.2))
    async def paced(call: Call) -> None:
        await call.step(note)

    owner.runner.begin()
    ids = [await owner.submit("paced") for _ in range(5)]
    for id in ids:
        await owner.runner.result(id)
    # two at once, then one in a tenth of a second each
    assert len(begun) == 5
    assert begun[-1] - begun[0] > 0.25


def test_room_that_a_call_of_a_busy_group_cannot_use_is_the_next_ones(tmp_path):
    async def story():
        async with owning(tmp_path, jobs_running=2) as owner:
            release = {name: asyncio.Event() for name in ("slow", "other")}

            async def hold(name: str) -> None:
                await release[name].wait()

            @owner.durable
            async def slow(call: Call) -> None:
                await call.step(hold, "slow")

            @owner.durable
            async def other(call: Call) -> None:
                await call.step(hold, "other")

            @owner.durable
            async def quick(call: Call) -> int:
                return await call.step(double, 2)

            owner.runner.begin()
            first = [await owner.submit("slow", group="a"), await owner.submit("other")]
            for id in first:
                await owner.until(id, DurableState.RUNNING)
            behind = await owner.submit("slow", group="a", priority=9)
            waiting = await owner.submit("quick")
            release["other"].set()
            async with asyncio.timeout(10):
                assert await owner.runner.result(waiting) == 4, "the group is busy, and the room is free"
            assert (await owner.engine.get(behind)).state is DurableState.QUEUED
            release["slow"].set()
            await owner.runner.result(behind)

    asyncio.run(story())

"""Days of durable calls in a moment: `System.advance`."""

import asyncio
import time
from functools import partial
from typing import Any

import pytest

from bema import Call, Queue, Retry, depends, endpoint, schedule, service
from bema.core.errors import DeadlineExceeded
from bema.testing import System
from bema.testing.virtual_clock import VirtualClock

DAY = 86_400
seen: list[tuple[str, float]] = []
clocks: list[VirtualClock] = []
calls_out = 0


@pytest.fixture(autouse=True)
def nothing_seen():
    seen.clear()


async def remind(what: str) -> str:
    seen.append((what, clocks[-1].now() / 1_000_000))
    return what


async def dial(fails: int) -> int:
    global calls_out
    calls_out += 1
    if calls_out <= fails:
        raise ConnectionError("not yet")
    return calls_out


@service(name="shop", namespace="days")
class Shop:
    @endpoint(durable=True)
    async def order(self, number: int, call: Call) -> str:
        for day in range(3):
            await call.step(remind, f"order {number}, day {day}")
            await call.sleep(DAY)
        return f"{number} sent"

    @endpoint(durable=True)
    async def patient(self, fails: int, call: Call) -> int:
        return await call.step(dial, fails, retry=Retry(first=600, most=3600, within=30 * DAY))

    @endpoint(durable=True)
    async def slow(self, call: Call) -> None:
        await call.step(asyncio.sleep, 30)

    @endpoint(durable=True)
    async def asks(self, call: Call) -> str:
        try:
            async with call.timeout(7 * DAY):
                return await call.ask(str, "yes?")
        except TimeoutError:
            return "nobody answered"


@service(name="clockwork", namespace="days")
class Clockwork:
    @schedule("0 3 * * *")
    @endpoint(durable=True)
    async def nightly(self, call: Call) -> None:
        await call.step(remind, "night")

    @endpoint(durable=Queue(rate=2, per=3600))
    async def seldom(self, number: int, call: Call) -> None:
        await call.step(remind, f"seldom {number}")


@service(name="boss", namespace="days")
class Boss:
    shop: Shop = depends(Shop)

    @endpoint(durable=True)
    async def week(self, call: Call) -> str:
        sent = await call.child(self.shop.order, 1)
        await call.sleep(4 * DAY)
        return f"{sent}, and a week is over"


def handle(system: System, service: type[Any]) -> Any:
    """As its callers see it: its methods have `later`, too, which the class has not."""
    return system.client(service)


def told(test):
    def run():
        began = time.monotonic()
        asyncio.run(test())
        assert time.monotonic() - began < 20, "days pass in a moment"

    run.__name__ = test.__name__
    return run


@told
async def test_what_is_due_in_three_days_is_done_in_its_order_each_at_its_time():
    async with System(Shop) as system:
        order = handle(system, Shop).order
        clocks.append(system.clock)
        began = system.clock.now() / 1_000_000
        refs = [await order.later(number, delay=number * 3600, key=f"order {number}") for number in (2, 1)]
        await system.advance(days=2, hours=3)
        assert [what for what, _ in seen] == [f"order {n}, day {day}" for day in range(3) for n in (1, 2)]
        # a day and its hour after it began, give or take what the machine takes for it
        for number, (what, at) in enumerate(seen):
            wanted = (number // 2) * DAY + (1 + number % 2) * 3600
            assert wanted - 1 <= at - began <= wanted + 10, what
        assert [(await ref.status())["state"] for ref in refs] == ["sleeping"] * 2
        await system.advance(days=1)
        assert [await ref.result() for ref in refs] == ["2 sent", "1 sent"]


@told
async def test_tries_of_a_step_come_when_they_are_due():
    global calls_out
    calls_out = 0
    async with System(Shop) as system:
        ref = await handle(system, Shop).patient.later(4)
        await system.advance(seconds=1)
        assert calls_out == 1
        await system.advance(minutes=11)
        assert calls_out == 2
        await system.advance(days=1)
        assert await ref.result() == 5


@told
async def test_a_call_that_waits_for_another_call_is_at_rest():
    async with System(Shop, Boss) as system:
        clocks.append(system.clock)
        ref = await handle(system, Boss).week.later()
        await system.advance(days=3, minutes=1)
        assert (await ref.status())["state"] == "sleeping"
        await system.advance(days=4)
        assert await ref.result() == "1 sent, and a week is over"


@told
async def test_a_question_that_nobody_answers_ends_with_its_timeout():
    async with System(Shop) as system:
        asks = handle(system, Shop).asks
        answered, forgotten = await asks.later(), await asks.later()
        await system.advance(days=6)
        await answered.answer("yes")
        await system.advance(days=1, seconds=1)
        assert [await answered.result(), await forgotten.result()] == ["yes", "nobody answered"]


@told
async def test_a_step_that_takes_its_time_for_real_is_waited_for_and_not_for_ever():
    async with System(Shop, wait=0.3) as system:
        await handle(system, Shop).slow.later()
        with pytest.raises(DeadlineExceeded, match="did not come to rest"):
            await system.advance(days=1)


@told
async def test_a_test_leaves_no_call_behind():
    for _ in range(2):
        async with System(Shop) as system:
            clocks.append(system.clock)
            ref = await handle(system, Shop).order.later(1, key="the same")
            await system.advance(days=3, seconds=1)
            assert await ref.result() == "1 sent"
    assert len(seen) == 6


@told
async def test_a_schedule_fires_once_a_day_and_a_rate_lets_through_as_many_as_it_says():
    async with System(Clockwork) as system:
        clocks.append(system.clock)
        await system.advance(days=3)
        assert [what for what, _ in seen] == ["night"] * 3
        seen.clear()
        for number in range(5):
            await handle(system, Clockwork).seldom.later(number)
        await system.advance(minutes=1)
        assert len(seen) == 2
        await system.advance(hours=3)
        assert len({what for what, _ in seen} - {"night"}) == 5


def test_a_jump_rings_what_it_comes_by_in_order_and_not_what_was_taken_back():
    async def story():
        clock, rung = VirtualClock(), list[int]()
        now = clock.now()
        forget = [clock.at(now + s * 1_000_000, partial(rung.append, s)) for s in (300, 100, 200)]
        forget[2]()
        clock.jump(now + 50_000_000)
        assert rung == []
        assert clock.next() == now + 100_000_000
        clock.jump(now + 10**9)
        assert rung == [100, 300]
        assert clock.next() is None
        clock.jump(now)
        assert clock.now() >= now + 10**9, "it never goes back"

    asyncio.run(story())


def test_what_is_soon_due_rings_by_itself():
    async def story():
        clock, rung = VirtualClock(), asyncio.Event()
        clock.at(clock.now() + 20_000, rung.set)
        async with asyncio.timeout(10):
            await rung.wait()

    asyncio.run(story())

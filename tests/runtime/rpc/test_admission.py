"""N slots and a queue of Q: what runs, what waits, what is refused."""

import asyncio
import time
from typing import Any

import pytest

from bema.core.call import Call
from bema.core.errors import DeadlineExceeded, Overloaded
from tests.runtime.served import Served, serving, unary, until


class Work:
    """A handler that holds its calls until it is told to let them go."""

    def __init__(self, served: Served) -> None:
        self.running: list[int] = []
        self.ran: list[int] = []
        self.go = asyncio.Event()
        served.handler(unary("work", n=int))(self.answer)

    async def answer(self, call: Call) -> Any:
        n = call.arguments["n"]
        self.running.append(n)
        self.ran.append(n)
        try:
            await self.go.wait()
        finally:
            self.running.remove(n)
        return n


@pytest.mark.alone
def test_the_call_beyond_slots_and_queue_is_refused_at_once_with_a_hint(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            work = Work(served)
            await served.start(slots=2, queue=3)
            calls = [asyncio.ensure_future(served.call("work", n=n)) for n in range(5)]
            await until(lambda: served.server.inflight == 5)
            assert work.running == [0, 1]
            took = []
            for _ in range(5):
                began = time.monotonic()
                with pytest.raises(Overloaded, match="2 calls run and 3 wait") as caught:
                    await served.call("work", n=9)
                took.append(time.monotonic() - began)
            assert min(took) < 0.01
            assert caught.value.retry_after is not None
            work.go.set()
            assert await asyncio.gather(*calls) == [0, 1, 2, 3, 4]
            assert work.ran == [0, 1, 2, 3, 4], "who waited ran in order, who was refused did not"
            assert await served.call("work", n=6) == 6

    asyncio.run(story())


def test_a_call_that_is_given_up_while_it_waits_never_runs(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            work = Work(served)
            await served.start(slots=1, queue=5)
            first = asyncio.ensure_future(served.call("work", n=1))
            await until(lambda: work.running == [1])
            second = asyncio.ensure_future(served.call("work", n=2))
            late = asyncio.ensure_future(served.call("work", timeout=0.05, n=3))
            last = asyncio.ensure_future(served.call("work", n=4))
            await until(lambda: served.server.inflight == 4)
            second.cancel()
            with pytest.raises(DeadlineExceeded):
                await late
            await until(lambda: served.server.inflight == 2)
            work.go.set()
            assert [await first, await last] == [1, 4]
            assert work.ran == [1, 4]

    asyncio.run(story())


def test_a_busy_instance_is_passed_over_for_one_with_room(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            work = Work(served)
            await served.start(slots=1)
            await served.start(slots=4)
            calls = [asyncio.ensure_future(served.call("work", n=n)) for n in range(5)]
            await until(lambda: len(work.running) == 5)
            with pytest.raises(Overloaded):
                await served.call("work", n=9)
            work.go.set()
            assert await asyncio.gather(*calls) == [0, 1, 2, 3, 4]

    asyncio.run(story())

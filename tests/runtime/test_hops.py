"""A chain of three services: what is given up at its end stops at its beginning, and nothing beside it does."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from bema import Call, DeadlineExceeded, DistributedRuntime, depends, endpoint, serve, service
from bema.runtime.discovery.discovery import wait_for
from bema.runtime.discovery.flock import FlockDiscovery

pytestmark = pytest.mark.usefixtures("each_loop")

begun: set[tuple[str, str]] = set()  # hop, who
left: list[tuple[str, str, float]] = []  # hop, who, when
told: list[tuple[str, float]] = []  # hop, seconds it was given


@contextlib.contextmanager
def hop(name: str, who: str, call: Call | None):
    if call is not None and call.deadline is not None:
        told.append((name, call.deadline - time.monotonic()))
    begun.add((name, who))
    try:
        yield
    finally:
        left.append((name, who, time.monotonic()))


@service(name="third", namespace="hops")
class Third:
    @endpoint()
    async def count(self, who: str, call: Call | None = None) -> AsyncIterator[int]:
        with hop("third", who, call):
            if who == "silent":
                await asyncio.sleep(60)
            for number in range(10**9):
                yield number
                await asyncio.sleep(0.001)

    @endpoint()
    async def wait(self, who: str, call: Call | None = None) -> None:
        with hop("third", who, call):
            await asyncio.sleep(60)


@service(name="second", namespace="hops")
class Second:
    third = depends(Third)

    @endpoint()
    async def count(self, who: str, call: Call | None = None) -> AsyncIterator[int]:
        with hop("second", who, call):
            async for number in self.third.count(who):
                yield number

    @endpoint()
    async def wait(self, who: str, call: Call | None = None) -> None:
        with hop("second", who, call):
            await self.third.wait(who)


@service(name="first", namespace="hops")
class First:
    second = depends(Second)

    @endpoint()
    async def count(self, who: str, call: Call | None = None) -> AsyncIterator[int]:
        with hop("first", who, call):
            async for number in self.second.count(who):
                yield number

    @endpoint()
    async def wait(self, who: str, call: Call | None = None) -> None:
        with hop("first", who, call):
            await self.second.wait(who)


@service(name="between", namespace="hops")
class Between:
    """A hop of plain functions, each in a thread."""

    third: Any = depends(Third)

    @endpoint()
    def wait(self, who: str) -> None:
        self.third.wait(who).result()

    @endpoint()
    def count(self, who: str) -> Iterator[int]:
        yield from self.third.count(who)


@pytest.fixture(autouse=True)
def fresh():
    begun.clear()
    left.clear()
    told.clear()


@contextlib.asynccontextmanager
async def chain(folder, *classes: type[Any]) -> AsyncIterator[DistributedRuntime]:
    """Each service in a runtime of its own, over sockets; the runtime of who calls them."""
    async with contextlib.AsyncExitStack() as stack:
        calling, *serving = [
            await stack.enter_async_context(DistributedRuntime(FlockDiscovery(folder))) for _ in range(len(classes) + 1)
        ]
        lives = [asyncio.create_task(serve(cls, runtime)) for cls, runtime in zip(classes, serving, strict=True)]
        await wait_for(await calling.discovery.view(), lambda seen: len(seen) == len(classes))
        yield calling
        for runtime in serving:
            runtime.stop()
        await asyncio.gather(*lives)


async def all_left(who: str, hops: int = 3) -> float:
    """When the last of the hops had put its things away."""
    async with asyncio.timeout(5):
        while len(when := {name: at for name, whose, at in left if whose == who}) < hops:
            await asyncio.sleep(0.001)
    return max(when.values())


@pytest.mark.alone
def test_a_stream_that_is_left_stops_at_every_hop_within_200_ms_and_its_sibling_goes_on(tmp_path):
    async def story():
        async with chain(tmp_path, First, Second, Third) as calling:
            first = calling.client(First)
            sibling: Any = first.count("sibling")
            assert [await anext(sibling) for _ in range(3)] == [0, 1, 2]
            took = []
            for number in range(3):
                mine: Any = first.count(f"mine {number}")
                assert await anext(mine) == 0
                at = time.monotonic()
                await mine.aclose()
                took.append(await all_left(f"mine {number}") - at)
            assert min(took) < 0.2
            assert [await anext(sibling) for _ in range(50)] == list(range(3, 53)), "in order, none lost"
            assert "sibling" not in {who for _, who, _ in left}
            await sibling.aclose()

    asyncio.run(story())


@pytest.mark.alone
def test_a_cancelled_call_stops_at_every_hop_within_200_ms_and_its_sibling_goes_on(tmp_path):
    async def story():
        async with chain(tmp_path, First, Second, Third) as calling:
            first = calling.client(First)
            sibling = asyncio.create_task(first.wait("sibling"))
            took = []
            for number in range(3):
                mine = asyncio.create_task(first.wait(f"mine {number}"))
                while ("third", f"mine {number}") not in begun:
                    await asyncio.sleep(0)
                mine.cancel()
                at = time.monotonic()
                took.append(await all_left(f"mine {number}") - at)
            assert min(took) < 0.2
            assert not sibling.done()
            sibling.cancel()
            await all_left("sibling")

    asyncio.run(story())


@pytest.mark.alone
def test_time_shrinks_from_hop_to_hop_and_ends_all_of_them(tmp_path):
    async def story():
        async with chain(tmp_path, First, Second, Third) as calling:
            first = calling.client(First, timeout=0.3)
            at = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await first.wait("mine")
            assert [name for name, _ in told] == ["first", "second", "third"]
            given = [seconds for _, seconds in told]
            assert 0.3 > given[0] > given[1] > given[2] > 0
            assert await all_left("mine") - at < 0.3 + 0.2

    asyncio.run(story())


@pytest.mark.alone
def test_a_hop_of_plain_functions_gives_up_what_it_waits_for(tmp_path):
    async def story():
        async with chain(tmp_path, Between, Third) as calling:
            between: Any = calling.client(Between)
            waiting = asyncio.create_task(between.wait("alone"))
            many = between.count("many")
            assert await anext(many) == 0
            while ("third", "alone") not in begun:
                await asyncio.sleep(0)
            waiting.cancel()
            at = time.monotonic()
            assert await all_left("alone", hops=1) - at < 0.2
            assert "many" not in {who for _, who, _ in left}
            await many.aclose()

            async def read() -> None:
                async for number in between.count("left"):
                    if number == 3:
                        break

            await read()
            await all_left("left", hops=1)

    asyncio.run(story())


def test_a_plain_generator_that_waits_for_an_item_is_given_up_too(tmp_path):
    async def story():
        async with chain(tmp_path, Between, Third) as calling:
            reading: Any = calling.client(Between).count("silent")
            first = asyncio.create_task(anext(reading))
            while ("third", "silent") not in begun:
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            await all_left("silent", hops=1)

    asyncio.run(story())

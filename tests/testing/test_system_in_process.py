"""`bema.testing.System`: a graph of services as a test runs it, in one process and without sockets."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import msgspec
import pytest
import uvloop

from bema import (
    Context,
    DeadlineExceeded,
    DistributedRuntime,
    Unavailable,
    async_init,
    depends,
    endpoint,
    entrypoint,
    on_shutdown,
    service,
)
from bema.testing import System

events: list[str] = []


@pytest.fixture(autouse=True)
def fresh_events():
    events.clear()


class Text(msgspec.Struct):
    text: str


@service(name="worker", namespace="graph")
class Worker:
    def __init__(self, context: Context) -> None:
        self.label = f"{context.instance_id:x}"

    @endpoint()
    async def words(self, request: Text) -> AsyncIterator[str]:
        for word in request.text.split():
            yield word

    @endpoint()
    async def who(self) -> str:
        return self.label

    @endpoint()
    async def slow(self) -> str:
        events.append("slow began")
        await asyncio.sleep(0.05)
        return "whole"

    @on_shutdown
    def shut(self) -> None:
        events.append("worker shut")


@service(name="router", namespace="graph")
class Router:
    worker = depends(Worker)

    @async_init
    async def warm_up(self) -> None:
        self.first = [word async for word in self.worker.words(Text("warm up"))]

    @endpoint()
    async def shout(self, text: str) -> list[str]:
        return [word.upper() async for word in self.worker.words(Text(text))] + self.first

    @on_shutdown
    async def shut(self) -> None:
        assert await self.worker.who()  # what it depends on outlives it
        events.append("router shut")


@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_graph_runs_in_one_process_on_any_loop(loop_factory):
    async def story():
        async with System(Worker, Router) as system:
            router = system.client(Router)
            assert await router.shout("to be") == ["TO", "BE", "warm", "up"]
            assert await system.endpoint("graph.router.shout").client()(text="or") == ["OR", "warm", "up"]
        assert events == ["router shut", "worker shut"]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(story())


def test_the_order_of_naming_is_not_the_order_of_starting():
    @service(name="late", namespace="graph")
    class Late:
        worker = depends(Worker)

        @async_init
        async def ask(self) -> None:
            self.known = await self.worker.who()

        @endpoint()
        async def same(self) -> bool:
            return self.known == await self.worker.who()

    async def story():
        async with System(Late, Worker) as system:
            assert await system.client(Late).same()

    asyncio.run(story())


def test_a_class_named_twice_has_two_instances():
    async def story():
        async with System(Worker, Worker) as system:
            worker = system.client(Worker)
            assert len({await worker.who() for _ in range(4)}) == 2

    asyncio.run(story())


def test_running_calls_finish_when_the_system_ends():
    async def story():
        async with System(Worker) as system:
            slow = asyncio.ensure_future(system.client(Worker).slow())
            while "slow began" not in events:
                await asyncio.sleep(0)
        assert await slow == "whole"

    asyncio.run(story())


def test_a_service_that_fails_to_start_is_named_and_the_others_end():
    @service(name="breaks", namespace="graph")
    class Breaks:
        @async_init
        async def break_it(self) -> None:
            raise ValueError("no")

        @endpoint()
        async def never(self) -> None: ...

    async def story():
        with pytest.raises(ValueError, match="no") as failed:
            async with System(Worker, Breaks):
                raise AssertionError("it was entered")
        assert failed.value.__notes__ == ["graph.breaks: step 'async_init' of start() failed"]
        assert events == ["worker shut"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(story())


def test_a_service_that_never_serves_is_named():
    @service(name="waits", namespace="graph")
    class Waits:
        @async_init
        async def wait(self) -> None:
            await asyncio.Event().wait()

        @endpoint()
        async def never(self) -> None: ...

    async def story():
        with pytest.raises(DeadlineExceeded, match=r"graph.waits did not serve within 0.05 s"):
            async with System(Waits, wait=0.05):
                raise AssertionError("it was entered")

    asyncio.run(story())


def test_an_entrypoint_that_ends_in_an_error_is_told_at_the_end():
    @service(name="power", namespace="graph")
    class Power:
        @entrypoint
        async def go(self, runtime: DistributedRuntime) -> None:
            await runtime.endpoint("graph.power.answer").serve_endpoint(self.answer)
            raise ValueError("afterwards")

        async def answer(self) -> int:
            return 42

    async def story():
        async with System(Power) as system:
            assert await (await system.endpoint("graph.power.answer").client())() == 42

    with pytest.raises(ValueError, match="afterwards"):
        asyncio.run(story())


def test_two_systems_do_not_meet():
    async def story():
        async with System(Worker) as one, System() as other:
            await one.client(Worker).who()
            with pytest.raises(Unavailable):
                await other.client(Worker).who()

    asyncio.run(story())


NOTHING_OPENED = """
import asyncio, sys
from bema.testing import System
from tests.testing.test_system_in_process import Router, Worker

async def once():
    async with System(Worker, Router) as system:
        return await system.client(Router).shout("to be")

async def story():
    await once()                     # what is imported when it is first used is imported now
    opened = []
    sys.addaudithook(lambda event, given: opened.append((event, given)) if event in WATCHED else None)
    said = await once()
    events, opened[:] = list(opened), []
    print(said, events)

WATCHED = {"open", "os.mkdir", "socket.__new__", "socket.bind", "socket.connect", "subprocess.Popen", "os.fork"}
asyncio.run(story())
"""


def test_no_file_and_no_socket_is_opened():
    done = subprocess.run([sys.executable, "-c", NOTHING_OPENED], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['TO', 'BE', 'warm', 'up'] []\n", "")

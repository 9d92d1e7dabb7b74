"""DistributedRuntime: places, clients and handles, over real sockets and the flock folder."""

import asyncio
import contextlib
import gc
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import msgspec
import pytest

import bema
from bema import (
    BadDeclaration,
    Call,
    Conflict,
    DeadlineExceeded,
    DistributedRuntime,
    Invalid,
    MemoryDiscovery,
    NotFound,
    Unavailable,
    endpoint,
    serve,
    service,
)
from bema.cli.doctor import locks
from bema.core import settings
from bema.core.errors import Refused
from bema.core.instance import State
from bema.runtime.discovery.flock import FlockDiscovery

from .helpers import until


class Point(msgspec.Struct):
    x: int
    y: int = 0


@service(name="shapes", namespace="demo")
class Shapes:
    @endpoint()
    async def add(self, a: int, b: int = 1) -> int:
        return a + b

    @endpoint()
    async def move(self, point: Point) -> Point:
        return Point(point.x + 1, point.y)

    @endpoint()
    async def count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @endpoint()
    async def total(self, numbers: AsyncIterator[int], start: int = 0) -> int:
        return start + sum([number async for number in numbers])

    @endpoint()
    async def echo(self, points: AsyncIterator[Point]) -> AsyncIterator[Point]:
        async for point in points:
            yield point

    @endpoint()
    def blocking(self, a: int) -> str:
        return f"{a} in {threading.current_thread().name != 'MainThread'}"

    @endpoint()
    def blocking_count(self, n: int) -> Iterator[int]:
        yield from range(n)

    @endpoint()
    async def told(self, call: Call | None = None) -> dict[str, str]:
        assert call is not None
        return {"route": call.route, **call.metadata}

    @endpoint()
    async def sleep(self) -> None:
        await asyncio.sleep(30)


@contextlib.asynccontextmanager
async def serving(cls: type = Shapes, folder=None) -> AsyncIterator[tuple[DistributedRuntime, DistributedRuntime]]:
    """A runtime that serves `cls`, and another that calls."""
    async with DistributedRuntime(FlockDiscovery(folder)) as one, DistributedRuntime(FlockDiscovery(folder)) as other:
        running = asyncio.create_task(serve(cls, one))
        spec = bema.spec_of(cls)
        view = await other.view(spec.namespace, spec.name)
        await until(lambda: len(view.instances()) == 1)
        yield one, other
        one.stop()
        await running


async def numbers(*values: Any) -> AsyncIterator[Any]:
    for value in values:
        yield value


def test_a_typed_handle_calls_every_shape():
    async def story():
        async with serving() as (_, runtime):
            shapes = runtime.client(Shapes)
            assert shapes is runtime.client(Shapes)
            assert await shapes.add(2) == 3
            assert await shapes.add(a=2, b=5) == 7
            assert await shapes.move(Point(1, 2)) == Point(2, 2)
            assert [i async for i in shapes.count(3)] == [0, 1, 2]
            assert await shapes.total(numbers(1, 2, 3)) == 6
            assert await shapes.total(numbers(1, 2), start=10) == 13
            assert [p async for p in shapes.echo(numbers(Point(1), Point(2)))] == [Point(1), Point(2)]
            blocking: Any = shapes.blocking(1)
            assert await blocking == "1 in True"
            blocking_count: Any = shapes.blocking_count(3)
            assert [i async for i in blocking_count] == [0, 1, 2]
            assert dir(shapes) == sorted(e.name for e in bema.spec_of(Shapes).endpoints)
            with pytest.raises(AttributeError, match=r"demo.shapes has no endpoint 'nothing'"):
                shapes.nothing  # type: ignore[attr-defined] # noqa: B018

    asyncio.run(story())


async def _whole(shapes: Any) -> None:
    assert [i async for i in shapes.count(3)] == [0, 1, 2]


async def _left_early(shapes: Any) -> None:
    async for i in shapes.count(100_000):
        if i == 2:
            break


async def _failed(shapes: Any) -> None:
    with pytest.raises(Invalid):
        await shapes.move(3)


@pytest.mark.parametrize(
    "call",
    [
        lambda shapes: shapes.add(1),
        lambda shapes: shapes.blocking(1),
        lambda shapes: shapes.total(numbers(1, 2)),
        _whole,
        _left_early,
        _failed,
    ],
    ids=["unary", "in a thread", "collecting", "a stream", "a stream that is left early", "a failure"],
)
def test_a_call_leaves_nothing_to_the_collector_and_a_stream_that_is_dropped_ends(call):
    """Pauses of the collector grow with what is left to it; and where little is made it may never come."""

    async def story():
        async with serving() as (one, runtime):
            shapes: Any = runtime.client(Shapes)
            server: Any = one.host._server
            await call(shapes)
            gc.collect()
            gc.disable()
            try:
                left = []
                for _ in range(3):
                    for _ in range(20):
                        await call(shapes)
                    await until(lambda: server.inflight == 0)
                    left.append(gc.collect())
            finally:
                gc.enable()
            # what calls leave is left each time; what an earlier test let go only now, once
            assert min(left) < 20, left

    asyncio.run(story())


def test_an_answer_is_what_the_signature_promises():
    async def story():
        async with serving() as (_, runtime):
            shapes = runtime.client(Shapes)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(shapes.add(i)) for i in range(3)]
            assert [task.result() for task in tasks] == await asyncio.gather(*map(shapes.add, range(3))) == [1, 2, 3]
            sleeping = asyncio.create_task(shapes.sleep())
            await asyncio.sleep(0.02)
            sleeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sleeping
            unasked: Any = shapes.sleep()
            unasked.close()
            counting: Any = shapes.count(100_000)
            async with contextlib.aclosing(counting) as numbers:
                assert await anext(numbers) == 0
            with pytest.raises(StopAsyncIteration):
                await anext(numbers)

    asyncio.run(story())


@service(name="watched", namespace="demo")
class Watched:
    """Streams without an end, and tells when the `finally` of each has run."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    @endpoint()
    async def endless(self) -> AsyncIterator[int]:
        try:
            for n in range(10**9):
                yield n
                await asyncio.sleep(0.001)
        finally:
            self.ends.append(time.monotonic())

    @endpoint()
    async def waits(self) -> int:
        try:
            await asyncio.sleep(60)
            return 0
        finally:
            self.ends.append(time.monotonic())

    @endpoint()
    async def ended(self) -> list[float]:
        return self.ends


async def by_break(watched: Watched) -> None:
    async for _ in watched.endless():
        break


async def by_aclose(watched: Watched) -> None:
    stream: Any = watched.endless()
    await anext(stream)
    await stream.aclose()


async def by_aclosing(watched: Watched) -> None:
    stream: Any = watched.endless()
    async with contextlib.aclosing(stream):
        await anext(stream)


async def by_async_with(watched: Watched) -> None:
    stream: Any = watched.endless()
    async with stream as numbers:
        assert await anext(numbers) == 0


async def by_task_cancel(watched: Watched) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in watched.endless():
            begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])


async def by_timeout(watched: Watched) -> None:
    stream: Any = watched.endless()
    await anext(stream)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            async for _ in stream:
                pass


async def by_cancelling_a_unary_call(watched: Watched) -> None:
    task = asyncio.create_task(watched.waits())
    await watched.ended()  # sent after it, and answered: it runs
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.usefixtures("each_loop")
@pytest.mark.parametrize(
    "leave", [by_break, by_aclose, by_aclosing, by_async_with, by_task_cancel, by_timeout, by_cancelling_a_unary_call]
)
def test_however_a_handle_s_call_is_left_its_handler_s_finally_runs_within_100_ms(leave):
    async def story():
        async with serving(Watched) as (_, runtime):
            watched = runtime.client(Watched)
            took = []
            gc.disable()  # a program that allocates little may not collect for minutes
            for count in range(1, 4):
                await leave(watched)
                left = time.monotonic()
                async with asyncio.timeout(5):
                    while len(ends := await watched.ended()) < count:
                        pass
                took.append(ends[-1] - left)
            assert min(took) < 0.1

    try:
        asyncio.run(story())
    finally:
        gc.enable()


def test_an_answer_is_asked_for_once():
    async def story():
        async with serving() as (_, runtime):
            answer: Any = runtime.client(Shapes).add(1)
            assert await answer == 2
            with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
                await answer

    asyncio.run(story())


def test_a_client_by_address_learns_the_parameters_from_the_instances():
    async def story():
        async with serving() as (one, runtime):
            client = await runtime.namespace("demo").component("shapes").endpoint("add").client()
            assert repr(client) == "<client of demo.shapes.add>"
            assert await client.add(2, 3) == await client(a=2, b=3) == await client.add(2, b=3) == 5
            assert client.instance_ids() == [one.host.component("demo", "shapes").instance_id]
            assert await runtime.endpoint("demo.shapes.move").client()({"x": 1}) == {"x": 2, "y": 0}
            stream = runtime.endpoint("dyn://demo.shapes.count").client()
            assert [i async for i in stream.count(2)] == [0, 1]
            assert await runtime.endpoint("demo.shapes.total").client()(numbers(1, 2)) == 3
            with pytest.raises(Invalid, match=r"takes 2 arguments \(a, b\), not 3"):
                await client(1, 2, 3)
            with pytest.raises(Invalid, match="was given a twice"):
                await client(1, a=1)
            with pytest.raises(Invalid, match="one stream can travel"):
                await client(numbers(), numbers())
            with pytest.raises(AttributeError, match="answers to 'add', not to 'sub'"):
                client.sub  # noqa: B018

    asyncio.run(story())


def test_options_bound_name_and_inform_a_call():
    async def story():
        async with serving() as (one, runtime):
            told = runtime.client(Shapes, metadata={"user": "ada"})
            assert (await told.told())["user"] == "ada"
            mine = one.host.component("demo", "shapes").instance_id
            client = runtime.endpoint("demo.shapes.told").client(instance=mine)
            assert (await client.using(timeout=5.0)())["route"] == "demo.shapes.told"
            with pytest.raises(Unavailable):
                await client.using(instance=1)()
            with pytest.raises(DeadlineExceeded):
                await runtime.client(Shapes, timeout=0.05).sleep()

    asyncio.run(story())


def test_what_is_not_there_is_said_apart():
    async def story():
        async with serving() as (_, runtime):
            with pytest.raises(NotFound, match=r"has no endpoint 'sub'; it has add, blocking"):
                await runtime.endpoint("demo.shapes.sub").client()(1)
            with pytest.raises(Unavailable, match=r"no instance of demo.nobody.add"):
                await runtime.endpoint("demo.nobody.add").client()(1)
            with pytest.raises(Unavailable, match=r"within 0\.05 s"):
                await runtime.endpoint("demo.nobody.add").client().wait_for_instances(timeout=0.05)
            with pytest.raises(Unavailable):
                await runtime.endpoint("demo.nobody.add").client(wait=0.05)(1)
            for address in ("a.b", "a.b.c.d", "a..c", "1.b.c"):
                with pytest.raises(Invalid):
                    runtime.endpoint(address)
            with pytest.raises(BadDeclaration, match="is not a service"):
                runtime.client(int)

    asyncio.run(story())


def test_awaiting_a_client_waits_for_an_instance():
    async def story():
        async with DistributedRuntime() as one, bema.connect() as other:

            async def late(n: int) -> AsyncIterator[int]:
                yield n

            client = other.endpoint("demo.late.generate").client()
            arrived = asyncio.ensure_future(client.wait_for_instances())
            await asyncio.sleep(0.02)
            assert not arrived.done()
            served = asyncio.create_task(one.endpoint("demo.late.generate").serve_endpoint(late))
            assert await asyncio.wait_for(arrived, 5) == [one.host.component("demo", "late").instance_id]
            assert (await client) is client
            assert [n async for n in client.generate(4)] == [4]
            one.stop()
            await served

    asyncio.run(story())


def test_a_call_chooses_how_its_instance_is_picked():
    async def story():
        async with DistributedRuntime() as one, DistributedRuntime() as two, bema.connect() as other:
            serving = []
            for number, runtime in enumerate((one, two)):

                async def answer(number: int = number) -> int:
                    return number

                serving.append(asyncio.create_task(runtime.endpoint("demo.pair.answer").serve_endpoint(answer)))
            client = other.endpoint("demo.pair.answer").client()
            ids = await client.wait_for_instances(2, timeout=5)
            assert {await client.round_robin() for _ in range(4)} == {0, 1}
            assert {await client.random() for _ in range(64)} == {0, 1}
            for ask in (client.power_of_two, client.least_loaded, client.answer):
                assert await ask() in (0, 1)
            answers = [{await client.direct(ident) for _ in range(4)} for ident in ids]
            assert sorted(answers, key=min) == [{0}, {1}]
            assert client.picking("random") is client.picking("random")
            with pytest.raises(Invalid, match="needs the instance"):
                await client.using(pick="direct")()
            for runtime in (one, two):
                runtime.stop()
            await asyncio.gather(*serving)

    asyncio.run(story())


def test_an_instance_publishes_and_is_waited_for_by_what_it_published():
    async def story():
        async with serving() as (one, other):
            client = other.endpoint("demo.shapes.add").client()
            component = one.namespace("demo").component("shapes")
            waits = asyncio.ensure_future(client.wait_for_instances(data={"model": "small"}))
            with pytest.raises(
                Unavailable, match=r"no 1 instances of demo\.shapes\.add with \{'model': 'small'\} within 0\.02 s"
            ):
                await client.wait_for_instances(timeout=0.02, data={"model": "small"})
            await component.publish(model="large", slots=3)
            assert not waits.done()
            await component.publish(model="small")
            assert await asyncio.wait_for(waits, 5) == [one.host.component("demo", "shapes").instance_id]
            assert client.instances()[0].data == {"model": "small", "slots": 3}
            await component.publish(slots=None)
            await until(lambda: client.instances()[0].data == {"model": "small"})

    asyncio.run(story())


def test_an_endpoint_may_be_hidden_for_a_while():
    async def story():
        async with serving() as (one, other):
            add = other.endpoint("demo.shapes.add").client()
            count = other.endpoint("demo.shapes.count").client()
            await add.wait_for_instances()
            await count.wait_for_instances()
            place = one.endpoint("demo.shapes.add")
            await place.hide()
            await until(lambda: add.instances() == ())
            assert len(count.instances()) == 1
            with pytest.raises(Unavailable):
                await add(a=1)
            await place.show()
            await until(lambda: len(add.instances()) == 1)
            assert await add(a=1) == 2
            with pytest.raises(NotFound, match="is not served here"):
                await one.endpoint("demo.shapes.nothing").hide()

    asyncio.run(story())


def test_a_stream_is_stopped_politely_or_killed_from_beside_its_reader():
    async def story():
        async with serving() as (_, runtime):
            stream: Any = runtime.client(Shapes).count(10_000_000)
            assert await anext(stream) == 0
            stream.kill()
            with pytest.raises(bema.BemaError, match="was killed") as killed:
                async for _ in stream:
                    pass
            assert killed.value.code == "cancelled"
            unasked: Any = runtime.client(Shapes).count(1)
            unasked.stop()
            unasked.kill()
            assert [i async for i in unasked] == [0]

    asyncio.run(story())


def test_a_runtime_s_own_bounds_hold():
    async def story():
        meeting = MemoryDiscovery()
        async with DistributedRuntime(meeting, limits={"drain": 0.05}, slots=1) as one, bema.connect(meeting) as other:

            async def hangs() -> None:
                await asyncio.sleep(60)

            running = asyncio.create_task(one.endpoint("demo.slow.hangs").serve_endpoint(hangs))
            client = await other.endpoint("demo.slow.hangs").client()
            calls = [asyncio.ensure_future(client()) for _ in range(2)]
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert isinstance(done.pop().exception(), bema.Overloaded)
            one.stop()
            await asyncio.wait_for(running, 5)
            await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(story())


def test_serving_ends_with_its_task_and_twice_is_refused():
    async def story():
        async with DistributedRuntime() as one, bema.connect() as other:

            async def answer() -> int:
                return 42

            component = one.namespace("demo").component("raw")
            await component.create_service()
            view = await other.view("demo", "raw")
            assert view.instances() == ()
            tasks = [
                asyncio.create_task(component.endpoint(name).serve_endpoint(answer)) for name in ("first", "second")
            ]
            await until(lambda: [len(i.endpoints) for i in view.instances()] == [2])
            with pytest.raises(Conflict, match=r"demo.raw.first is served already"):
                await component.endpoint("first").serve_endpoint(answer)
            assert [[e.name for e in i.endpoints] for i in view.instances()] == [["first", "second"]]
            assert await other.endpoint("demo.raw.first").client()() == 42, "the first one is served as before"
            tasks[0].cancel()
            await until(lambda: [[e.name for e in i.endpoints] for i in view.instances()] == [["second"]])
            assert await other.endpoint("demo.raw.second").client()() == 42
            one.stop()
            await tasks[1]
            assert tasks[0].cancelled()

    asyncio.run(story())


def test_handlers_that_cannot_be_called_by_name_are_refused_when_served():
    async def story():
        async with DistributedRuntime(MemoryDiscovery()) as runtime:
            place = runtime.endpoint("demo.raw.bad")
            with pytest.raises(BadDeclaration, match="cannot travel"):
                await place.serve_endpoint(lambda *words: None)
            with pytest.raises(BadDeclaration, match="has no signature"):
                await place.serve_endpoint(42)  # type: ignore[arg-type]
            assert runtime.host.components == {}

    asyncio.run(story())


def test_a_handler_of_any_shape_is_served_and_a_failing_one_marks_nobody_down():
    async def coroutine(n: int) -> list[int]:
        return list(range(n))

    async def stream(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    def plain(n: int) -> list[int]:
        return list(range(n))

    def generator(n: int) -> Iterator[int]:
        yield from range(n)

    async def failing(n: int) -> list[int]:
        raise LookupError("nothing")

    async def story():
        handlers = {f.__name__: f for f in (coroutine, stream, plain, generator, failing)}
        async with DistributedRuntime() as one, bema.connect() as other:
            serving = [
                asyncio.create_task(one.endpoint(f"demo.any.{name}").serve_endpoint(handler))
                for name, handler in handlers.items()
            ]
            clients = {name: other.endpoint(f"demo.any.{name}").client() for name in handlers}
            for client in clients.values():
                await client.wait_for_instances(timeout=5)
            for _ in range(2):
                with pytest.raises(LookupError):
                    await clients["failing"](n=3)
                with pytest.raises(Invalid):
                    await clients["stream"](n=2)  # two answers where one was asked for
                assert await clients["coroutine"](n=3) == await clients["plain"](n=3) == [0, 1, 2]
                assert [i async for i in clients["stream"](n=3)] == [i async for i in clients["generator"](n=3)]
                assert [i async for i in clients["coroutine"](n=1)] == [[0]]
                assert all(len(client.instances()) == 1 for client in clients.values())
            one.stop()
            await asyncio.gather(*serving)

    asyncio.run(story())


def test_draining_shows_and_finishes():
    async def story():
        async with serving() as (one, runtime):
            view = await runtime.view("demo", "shapes")
            stream = runtime.client(Shapes).count(3)
            assert await anext(stream) == 0
            draining = asyncio.ensure_future(one.drain())
            await until(lambda: not view.instances() or view.instances()[0].state is State.DRAINING)
            assert [i async for i in stream] == [1, 2]
            assert await draining is True
            await until(lambda: view.instances() == ())

    asyncio.run(story())


@service(name="shapes", namespace="demo")
class Router:
    """Bears the name of what it routes to, as people do."""

    def __init__(self, context: bema.Context) -> None:
        self.runtime = context.runtime
        self.worker = self.runtime.endpoint("demo.shapes.add").client()

    @endpoint()
    async def add(self, a: int, b: int = 1) -> str:
        return f"routed {await self.worker.add(a, b)}"


def test_a_client_made_inside_an_instance_skips_that_instance(tmp_path):
    async def story():
        async with serving(Router, tmp_path) as (one, runtime):
            router = runtime.endpoint("demo.shapes.add").client(
                instance=one.host.component("demo", "shapes").instance_id
            )
            with pytest.raises(Unavailable):
                await router(1)
            async with DistributedRuntime(FlockDiscovery(tmp_path)) as worker:
                running = asyncio.create_task(serve(Shapes, worker))
                view = await one.view("demo", "shapes")
                await until(lambda: len(view.instances()) == 2)
                assert await router(1) == "routed 2"
                worker.stop()
                await running

    asyncio.run(story())


@service(name="alone", namespace="demo")
class Alone:
    """Calls its own component, as people try it out: from a hook, a handler, a task, and by `depends`."""

    def __init__(self, context: bema.Context) -> None:
        self.runtime = context.runtime
        self.made_before = self.runtime.endpoint("demo.alone.name").client()

    @bema.async_init
    async def prepare(self) -> None:
        self.made_in_hook = self.runtime.client(Alone)

    @endpoint()
    async def name(self) -> str:
        return str(self.runtime.host.component("demo", "alone").instance_id)

    @endpoint()
    async def asks(self) -> list[str]:
        made_here = self.runtime.client(Alone)
        return [await self.made_before(), await self.made_in_hook.name(), await made_here.name()]

    @endpoint()
    def asks_plainly(self) -> str:
        handle: Any = self.made_in_hook
        return str(handle.name().result())

    @endpoint()
    def again_plainly(self) -> str:
        handle: Any = self.made_in_hook
        return str(handle.again_plainly().result())

    @endpoint()
    async def asks_in_a_task(self) -> str:
        return str(await asyncio.create_task(self._ask()))

    async def _ask(self) -> str:
        return str(await self.made_in_hook.name())

    @endpoint()
    async def waits(self, count: int) -> list[int]:
        return await self.made_before.wait_for_instances(count, timeout=5)

    @endpoint()
    async def again(self) -> str:
        return str(await self.made_in_hook.again())

    @endpoint()
    async def directly(self) -> str:
        own = self.runtime.host.component("demo", "alone").instance_id
        return str(await self.made_before.direct(own))

    @endpoint()
    async def depends(self) -> str:
        return str(await self.runtime.dependency(Alone).name())


def test_the_only_instance_of_a_component_is_found_by_its_own_clients_except_where_that_would_never_end(tmp_path):
    async def story():
        async with serving(Alone, tmp_path) as (one, runtime):
            alone: Any = runtime.client(Alone)
            own = one.host.component("demo", "alone").instance_id
            assert await alone.asks() == [str(own)] * 3
            assert await alone.asks_in_a_task() == await alone.directly() == str(own)
            assert await alone.asks_plainly() == str(own)
            assert await alone.waits(1) == [own]
            with pytest.raises(Unavailable, match=r"this one just answers a call of it"):
                await alone.again_plainly()
            with pytest.raises(Unavailable, match=r"this one just answers a call of it"):
                await alone.again()
            with pytest.raises(Unavailable):  # what it depends on is another service, though it bears its name
                await alone.depends()
            async with DistributedRuntime(FlockDiscovery(tmp_path)) as second:
                running = asyncio.create_task(serve(Alone, second))
                view = await one.view("demo", "alone")
                await until(lambda: len(view.instances()) == 2)
                first = runtime.client(Alone, instance=own)
                other = second.host.component("demo", "alone").instance_id
                assert await first.asks() == [str(other)] * 3
                assert sorted(await first.waits(2)) == sorted([own, other])
                assert await first.depends() == str(other)
                second.stop()
                await running

    asyncio.run(story())


def test_calls_go_on_while_the_meeting_place_is_cleared_or_away(tmp_path, caplog):
    folder = tmp_path / "d"

    async def story():
        async with serving(Shapes, folder) as (_, runtime):
            shapes = runtime.client(Shapes)
            stop, answered = asyncio.Event(), 0

            async def call() -> None:
                nonlocal answered
                while not stop.is_set():
                    answered += await shapes.add(0)

            calling = asyncio.create_task(call())
            record = next(folder.glob("*.json"))
            for path in folder.iterdir():
                path.unlink()
            await until(record.exists)
            folder.rename(tmp_path / "away")
            folder.touch()
            await until(lambda: "cannot be written" in caplog.text)
            folder.unlink()
            await until(record.exists)
            before = answered
            await until(lambda: answered > before or calling.done())
            stop.set()
            await calling

    asyncio.run(story())


SERVER = """
import asyncio, sys
from bema import service, endpoint

@service(name="tokens", namespace="demo")
class Tokens:
    @endpoint()
    async def generate(self, n: int):
        for i in range(n):
            yield f"token{i}"

    @endpoint()
    async def one(self) -> int:
        return 1

asyncio.run(Tokens.start())
"""


@pytest.fixture
def tokens(tmp_path, monkeypatch) -> Iterator[None]:
    """A service in another process."""
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", SERVER], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "ready" in process.stderr.readline()
    yield
    process.terminate()
    process.communicate(timeout=10)


def may_unshare() -> bool:
    command = shutil.which("unshare")
    return command is not None and subprocess.run([command, *NAMESPACE, "true"], capture_output=True).returncode == 0


NAMESPACE = ("--pid", "--fork", "--mount-proc", "--kill-child")


@pytest.mark.skipif(not may_unshare(), reason="needs a PID namespace of its own")
def test_what_runs_in_another_pid_namespace_is_named_and_not_passed_over_in_silence(tmp_path, monkeypatch, caplog):
    """As a container that shares the state directory: its pids are other processes here, so nobody can tell who lives."""
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    command = ["unshare", *NAMESPACE, sys.executable, "-c", SERVER]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "ready" in process.stderr.readline()

    async def story():
        async with bema.connect() as runtime:
            client = runtime.endpoint("demo.tokens.one").client()
            with pytest.raises(Unavailable, match=r"pid \d+ on \S+ is of another PID namespace") as caught:
                await client()
            assert "one PID namespace" in caught.value.fix
            assert "an instance of demo.tokens" in caplog.text
            view = await runtime.view("demo", "tokens")
            found = locks(settings.load())
            assert found.level == "note"
            assert "demo.tokens" in found.says
            process.kill()
            await until(lambda: not getattr(view, "strangers"))  # noqa: B009 - of this discovery alone
            with pytest.raises(Unavailable, match=r"is there$"):
                await client()

    try:
        asyncio.run(story())
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_a_plain_for_inside_a_coroutine_gives_the_tokens(tokens):
    async def story():
        async with bema.connect() as runtime:
            client = runtime.endpoint("demo.tokens.generate").client()
            assert list(client.generate(3)) == ["token0", "token1", "token2"]
            for token in client.generate(100_000):
                assert token == "token0"
                break
            assert runtime.endpoint("demo.tokens.one").client()().result() == 1

    before = threading.active_count()
    asyncio.run(story())
    assert threading.active_count() == before


def test_a_plain_for_over_its_own_process_is_refused():
    async def story():
        async with serving() as (_, runtime):
            with pytest.raises(Invalid, match="would wait for its own process"):
                list(runtime.endpoint("demo.shapes.count").client()(1))
        async with DistributedRuntime(MemoryDiscovery()) as runtime:
            with pytest.raises(Refused, match="serves one event loop"):
                list(runtime.endpoint("demo.shapes.count").client()(1))

    asyncio.run(story())


def test_a_plain_for_from_another_thread_is_fine():
    async def story():
        async with serving() as (_, runtime):
            client = runtime.endpoint("demo.shapes.count").client()
            assert await asyncio.to_thread(lambda: list(client(3))) == [0, 1, 2]

    asyncio.run(story())


def test_two_event_loops_in_one_process_meet():
    async def story():
        async with serving() as (_, _):

            async def elsewhere() -> int:
                async with bema.connect() as runtime:
                    return await runtime.client(Shapes).add(1)

            assert await asyncio.to_thread(asyncio.run, elsewhere()) == 2

    asyncio.run(story())


def test_closing_releases_everything():
    async def story():
        async with serving() as (_, runtime):
            await runtime.client(Shapes).add(1)
            await runtime.close()
            await runtime.close()

    asyncio.run(story())
    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(story())
    assert len(os.listdir("/proc/self/fd")) == before


@contextlib.contextmanager
def nothing_can_be_written():
    """As on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_record_that_cannot_be_written_ends_nothing_and_is_written_when_it_can_be(tmp_path):
    async def story():
        async with serving(Slow, tmp_path) as (one, other):
            view = await other.view("demo", "slow")
            with nothing_can_be_written():
                await one.host.say_ready(False)
                assert view.instances()[0].ready, "it shows what it showed"
                running = asyncio.ensure_future(other.client(Slow).slowly())
                await Slow.begun.wait()
            await until(lambda: not view.instances()[0].ready)
            with nothing_can_be_written():
                draining = asyncio.ensure_future(one.drain())
                await asyncio.sleep(0)
                Slow.go.set()
                assert await running == "whole"
                assert await draining
            assert view.instances() == ()

    asyncio.run(story())


@service(name="slow", namespace="demo")
class Slow:
    begun: ClassVar = asyncio.Event()
    go: ClassVar = asyncio.Event()

    @endpoint()
    async def slowly(self) -> str:
        self.begun.set()
        await self.go.wait()
        return "whole"


async def hello(name: str) -> str:
    return f"hello {name}"


def test_a_client_finds_the_only_service_of_its_own_process_whenever_it_was_made(tmp_path):
    async def story():
        async with DistributedRuntime(FlockDiscovery(tmp_path)) as runtime:
            place = runtime.endpoint("demo.one.hello")
            before = place.client()
            serving = asyncio.create_task(place.serve_endpoint(hello))
            assert await before.wait_for_instances(timeout=5) == await place.client().wait_for_instances(timeout=5)
            assert await before("a") == await place.client()("a") == "hello a"
            runtime.stop()
            await serving

    asyncio.run(story())


FORKED = """
import os, sys
import bema
runtime = bema.connect()
client = runtime.endpoint("demo.shapes.add").client(timeout=5)
assert client(a=1).result() == 2
if (child := os.fork()) == 0:
    print(client(a=2).result(), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(client(a=3).result(), flush=True)
os._exit(0)
"""


def test_a_client_that_was_used_from_sync_code_works_in_a_forked_child_too(tmp_path):
    """Servers fork after loading: what was made before the fork is used after it."""

    async def story():
        async with serving(Shapes, tmp_path / "run" / "d"):
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                FORKED,
                stdout=subprocess.PIPE,
                env={**os.environ, "BEMA_STATE_DIR": str(tmp_path)},
            )
            said, _ = await asyncio.wait_for(child.communicate(), 20)
            assert (child.returncode, said.split()) == (0, [b"3", b"4"])

    asyncio.run(story())

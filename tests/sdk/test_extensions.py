"""Rooms above `sdk`: installed as a distribution, named by a fact, opened by the boot; and what happens without one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from bema import Context, DistributedRuntime, MemoryDiscovery, endpoint, on_shutdown, serve, service
from bema.core.call import Call, Handler
from bema.core.errors import BemaError, Failed
from bema.core.spec import ServiceSpec
from bema.runtime.discovery.discovery import wait_for
from bema.sdk.extensions import Bound, ExtensionFactory
from tests.parts.conftest import Machine, machine

__all__ = ["machine"]

events: list[str] = []


@pytest.fixture(autouse=True)
def fresh_events() -> None:
    events.clear()


class Steps:
    """What a service may ask for by type."""

    def __init__(self) -> None:
        self.taken: list[str] = []


class StepsExtension:
    """Counts the calls of the endpoints that name it."""

    async def open(self, context: Context, spec: ServiceSpec) -> Bound:
        events.append(f"open {context.namespace}.{spec.name}")
        self.steps = Steps()
        named = [each for each in spec.endpoints if "steps" in each.facts]
        return Bound({Steps: self.steps}, {each.name: self.around(each.facts["steps"]) for each in named})

    def around(self, fact: Any) -> Any:
        def interceptor(handler: Handler) -> Handler:
            if fact == "streams":

                async def stream(call: Call) -> AsyncIterator[Any]:
                    self.steps.taken.append(call.route)
                    async for item in handler(call):  # type: ignore[union-attr]
                        yield item

                return stream

            async def unary(call: Call) -> Any:
                self.steps.taken.append(call.route)
                return await handler(call)  # type: ignore[misc]

            return unary

        return interceptor

    async def close(self) -> None:
        events.append("close")


@service(name="worker", namespace="demo", extra={"shown": {"icon": "tea"}})
class Worker:
    def __init__(self, steps: Steps) -> None:
        events.append("construct")
        self.steps = steps

    @endpoint(extra={"steps": "once"})
    async def counted(self, x: int) -> int:
        return x + len(self.steps.taken)

    @endpoint(extra={"steps": "once"})
    def counted_in_a_thread(self, x: int) -> int:
        return x + len(self.steps.taken)

    @endpoint(extra={"steps": "streams"})
    async def counted_stream(self, x: int) -> AsyncIterator[int]:
        for number in range(x):
            yield number + len(self.steps.taken)

    @endpoint()
    async def plain(self) -> list[str]:
        return self.steps.taken

    @on_shutdown
    def shut(self) -> None:
        events.append("shut")


@service(name="needy", namespace="demo")
class Needy:
    @endpoint(extra={"absent": True})
    async def asks(self) -> int:
        return 1

    @endpoint(extra={"absent": True})
    def asks_in_a_thread(self) -> int:
        return 1

    @endpoint(extra={"absent": True})
    async def streams(self) -> AsyncIterator[int]:
        yield 1

    @endpoint()
    async def plain(self) -> int:
        return 2


def with_client(cls: type[Any], story: Any) -> None:
    async def run() -> None:
        discovery = MemoryDiscovery()
        async with DistributedRuntime(discovery) as serving, DistributedRuntime(discovery) as calling:
            running = asyncio.create_task(serve(cls, serving))
            await asyncio.wait_for(wait_for(await discovery.view(), lambda found: len(found) == 1), 5)
            await story(calling.client(cls))
            serving.stop()
            await running

    asyncio.run(run())


@pytest.fixture
def steps() -> Iterator[None]:
    with ExtensionFactory.override("steps", StepsExtension):
        yield


def test_what_it_gives_is_passed_by_type_and_stands_around_the_endpoints_that_name_it(steps):
    async def story(worker: Any) -> None:
        assert await worker.counted(10) == 11
        assert await worker.counted_in_a_thread(10) == 12
        assert [item async for item in worker.counted_stream(2)] == [3, 4]
        assert await worker.plain() == [
            "demo.worker.counted",
            "demo.worker.counted_in_a_thread",
            "demo.worker.counted_stream",
        ]

    with_client(Worker, story)


def test_it_is_opened_before_the_constructor_and_closed_after_the_last_hook(steps):
    async def story(worker: Any) -> None:
        assert events == ["open demo.worker", "construct"]

    with_client(Worker, story)
    assert events == ["open demo.worker", "construct", "shut", "close"]


def test_without_it_the_calls_that_need_it_are_refused_and_the_others_answered():
    async def story(needy: Any) -> None:
        assert await needy.plain() == 2
        for refused in (needy.asks, needy.asks_in_a_thread):
            with pytest.raises(BemaError, match="needs the extension 'absent'") as told:
                await refused()
            assert told.value.code == "extension_missing"
        with pytest.raises(BemaError, match="needs the extension 'absent'"):
            [item async for item in needy.streams()]

    with_client(Needy, story)


def test_a_fact_of_a_class_alone_needs_nothing_and_opens_what_is_there():
    @service(name="shown", namespace="demo", extra={"seen": {"icon": "tea"}, "absent": 1})
    class Shown:
        @endpoint()
        async def plain(self) -> int:
            return 1

    class Seen:
        async def open(self, context: Context, spec: ServiceSpec) -> Bound:
            events.append(f"seen {spec.facts['seen']}")
            return Bound()

        async def close(self) -> None: ...

    async def story(shown: Any) -> None:
        assert await shown.plain() == 1

    with ExtensionFactory.override("seen", Seen):
        with_client(Shown, story)
    assert events == ["seen {'icon': 'tea'}"]


def test_one_that_cannot_be_opened_ends_the_start():
    class Broken:
        async def open(self, context: Context, spec: ServiceSpec) -> Bound:
            raise Failed("the database is away")

        async def close(self) -> None:
            events.append("closed")

    with ExtensionFactory.override("steps", Broken), pytest.raises(Failed, match="the database is away") as failed:
        asyncio.run(serve(Worker, None))
    assert any("step 'context' of start() failed" in note for note in failed.value.__notes__)
    assert events == []


PLUGIN = """
from bema.sdk.extensions import Bound

class Tally:
    def __init__(self):
        self.calls = 0

class TallyExtension:
    async def open(self, context, spec):
        self.tally = Tally()
        return Bound({Tally: self.tally}, {each.name: self.around for each in spec.endpoints if "tally" in each.facts})

    def around(self, handler):
        async def counted(call):
            self.tally.calls += 1
            return await handler(call)
        return counted

    async def close(self):
        print("closed", self.tally.calls)
"""

PROGRAM = """
import asyncio, json
from bema import DistributedRuntime, MemoryDiscovery, endpoint, serve, service
from bema.core.errors import BemaError
from bema.runtime.discovery.discovery import wait_for

@service(name="worker", namespace="demo")
class Worker:
    @endpoint(extra={"tally": {}})
    async def counted(self) -> str:
        return "answered"

async def main():
    discovery = MemoryDiscovery()
    async with DistributedRuntime(discovery) as serving, DistributedRuntime(discovery) as calling:
        running = asyncio.create_task(serve(Worker, serving))
        await wait_for(await discovery.view(), lambda found: len(found) == 1)
        try:
            print(await calling.client(Worker).counted())
        except BemaError as error:
            print(error.code)
        serving.stop()
        await running

asyncio.run(main())
"""


def test_a_distribution_brings_one_by_entry_point_and_without_it_the_call_says_so(machine: Machine):
    assert machine.run(PROGRAM, prelude="").stdout.split() == ["extension_missing"]
    machine.add(
        "tally-room",
        {"tally": "tally_room:TallyExtension"},
        {"tally_room.py": PLUGIN},
        group="bema.extensions.plugins",
    )
    done = machine.run(PROGRAM, prelude="")
    assert done.stdout.splitlines() == ["answered", "closed 1"], done.stderr
    shown = json.loads(machine.bema("explain", "extension_missing", "--json").stdout)
    assert "bema.extensions" in json.dumps(shown)

"""Every component says what it is; who asks, asks once for each digest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from bema.core import describe
from bema.core.errors import NotFound, Unavailable
from bema.core.instance import Instance
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.distributed import Component, DistributedRuntime
from bema.runtime.rpc.metrics import CallMetrics
from bema.sdk.status.components import ComponentView
from tests.runtime.helpers import until


class Text(msgspec.Struct):
    text: str


async def length(request: Text) -> int:
    return len(request.text)


async def words(request: Text) -> AsyncIterator[str]:
    yield request.text


@asynccontextmanager
async def shapes(*functions: Any, **options: Any) -> AsyncIterator[tuple[Component, Component]]:
    """The component as it is served, and as it is seen from another runtime."""
    meeting = MemoryDiscovery()
    async with DistributedRuntime(meeting, **options) as serving, DistributedRuntime(meeting) as calling:
        here, there = (runtime.namespace("demo").component("shapes") for runtime in (serving, calling))
        tasks = [
            asyncio.create_task(here.endpoint(function.__name__).serve_endpoint(function)) for function in functions
        ]
        for function in functions:
            await there.endpoint(function.__name__).client().wait_for_instances(timeout=5)
        yield here, there
        serving.stop()
        await asyncio.gather(*tasks)


async def seen(component: Component) -> Instance:
    (instance,) = (await component.runtime.view("demo", "shapes")).instances()
    return instance


def test_a_component_says_what_it_serves_and_its_record_has_the_digest():
    async def story():
        async with shapes(length, words) as (_, there):
            said = await there.description()
            assert [endpoint.signature for endpoint in said.endpoints] == [
                "length(request: Text) -> int",
                "words(request: Text) -> stream of str",
            ]
            assert said.definitions["Text"]["properties"] == {"text": {"type": "string"}}
            instance = await seen(there)
            assert instance.digest == said.digest
            assert [info.name for info in instance.endpoints] == ["length", "words"], "the built-in one is not told of"

    asyncio.run(story())


def test_the_built_in_endpoint_is_asked_once_for_a_digest(monkeypatch):
    async def story():
        async with shapes(length) as (_, there):
            asked = []
            descriptions = there.runtime.descriptions
            ask = descriptions._asked

            def counted(*given: Any) -> Any:
                asked.append(given)
                return ask(*given)

            monkeypatch.setattr(descriptions, "_asked", counted)
            assert await there.description() is await there.description()
            assert len(asked) == 1
            other = msgspec.structs.replace(await seen(there), component="other")
            with pytest.raises(NotFound):
                await descriptions.of(other)
            assert (await descriptions.shown(other)).digest == "", "its record is what is known of it"

    asyncio.run(story())


def test_asking_for_it_is_not_counted_among_the_users_calls():
    async def story():
        async with DistributedRuntime(meeting := MemoryDiscovery()) as serving, DistributedRuntime(meeting) as calling:
            metrics = CallMetrics()
            serving.host.accepts = metrics.connection
            task = asyncio.create_task(serving.endpoint("demo.shapes.length").serve_endpoint(length))
            client = await calling.endpoint("demo.shapes.length").client()
            await client(Text("a"))
            await calling.namespace("demo").component("shapes").description()
            view = ComponentView(serving.host, serving.namespace("demo").component("shapes").hosted, metrics)
            assert [(name, counter.ok) for name, counter in view.counters()] == [("length", 1)]
            serving.stop()
            await task

    asyncio.run(story())


def test_what_is_hidden_or_added_changes_what_is_said():
    async def story():
        async with shapes(length, words) as (here, there):
            before = (await seen(there)).digest
            await here.endpoint("words").hide()
            view = await there.runtime.view("demo", "shapes")
            await until(lambda: view.instances()[0].digest != before)
            assert [endpoint.name for endpoint in (await there.description()).endpoints] == ["length"]
            await here.endpoint("words").show()
            await until(lambda: view.instances()[0].digest == before)

    asyncio.run(story())


def test_a_full_instance_still_says_what_it_is():
    began, go = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        await go.wait()

    async def story():
        async with shapes(work, slots=1) as (_, there):
            running = asyncio.ensure_future(there.endpoint("work").client()())
            await began.wait()
            assert [endpoint.name for endpoint in (await there.description(timeout=5)).endpoints] == ["work"]
            go.set()
            await running

    asyncio.run(story())


def test_an_older_instance_is_known_by_its_record():
    async def story():
        async with shapes(length) as (_, there):
            older = msgspec.structs.replace(await seen(there), digest="")
            said = await there.runtime.descriptions.of(older)
            assert [endpoint.signature for endpoint in said.endpoints] == ["length(request: Any = ...) -> Any"]

    asyncio.run(story())


def test_without_an_instance_there_is_nothing_to_say():
    async def story():
        async with DistributedRuntime(MemoryDiscovery()) as runtime:
            with pytest.raises(Unavailable, match=r"no instance of demo\.nobody is there"):
                await runtime.namespace("demo").component("nobody").description()

    asyncio.run(story())


def test_it_is_called_as_any_endpoint_is_by_who_holds_the_token():
    async def story():
        async with shapes(length) as (_, there):
            connection = await there.runtime.pool.connect(await seen(there))
            _, answer = connection.ask(1, "demo.shapes.$describe", msgspec.msgpack.encode({}), 1e9, None, b"")
            payload = msgspec.msgpack.decode(await answer)
            assert describe.decode(payload) == await there.description()

    asyncio.run(story())

"""What the binding tests of that runtime assert of cancellation, payloads, metadata, runtime data and instances."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bema.compat.dynamo import _core
from bema.compat.dynamo.llm.exceptions import DynamoException, HttpError
from bema.compat.dynamo.runtime import CannotConnect, Client, Context, DistributedRuntime, Endpoint
from bema.core.errors import BemaError, Conflict, Invalid, RemoteError
from tests.compat.test_dynamo_runtime import run, served
from tests.runtime.helpers import an_instance, until


class Server:
    """A handler that does what its request names, and keeps what it saw of its context."""

    def __init__(self) -> None:
        self.saw: list[tuple[bool, bool, dict[str, str]]] = []

    def see(self, context: Context) -> None:
        self.saw.append((context.is_stopped(), context.is_killed(), dict(context.metadata.items())))

    async def generate(self, request: str, context: Any) -> AsyncIterator[Any]:
        async for answer in getattr(self, request)(context):
            yield answer

    async def until_stopped(self, context: Context) -> AsyncIterator[Any]:
        for number in range(1000):
            if context.is_stopped():
                self.see(context)
                raise asyncio.CancelledError
            await asyncio.sleep(0.01)
            yield {"number": number, "metadata": dict(context.metadata.items())}

    async def stopping_itself(self, context: Context) -> AsyncIterator[Any]:
        yield 0
        yield 1
        context.stop_generating()
        self.see(context)

    async def cancelling(self, context: Context) -> AsyncIterator[Any]:
        yield 0
        yield 1
        raise asyncio.CancelledError


# cancellation


def test_a_stop_reaches_the_server_as_a_stop_and_the_metadata_as_they_were():
    async def story():
        server = Server()
        async with served(server.generate) as endpoint:
            context = Context(metadata={"tenant": "alpha", "region": "west"})
            stream = await endpoint.client().generate("until_stopped", context=context)
            async for answer in stream:
                assert answer.data()["metadata"] == {"tenant": "alpha", "region": "west"}
                if answer.data()["number"] == 2:
                    context.stop_generating()
                    break
            await until(lambda: server.saw == [(True, False, {"tenant": "alpha", "region": "west"})], 1)

    run(story)


def test_a_stop_of_the_server_s_own_is_an_error_at_the_client():
    async def story():
        server = Server()
        async with served(server.generate) as endpoint:
            for request in ("stopping_itself", "cancelling"):
                stream = await endpoint.client().generate(request)
                assert [(await anext(stream)).data() for _ in range(2)] == [0, 1]
                with pytest.raises(ValueError):
                    await anext(stream)
            assert server.saw == [(True, False, {})]

    run(story)


def test_a_context_stopped_between_the_request_and_its_await_calls_nobody():
    async def story():
        server = Server()
        async with served(server.generate) as endpoint:
            context = Context()
            request = endpoint.client().generate("until_stopped", context=context)
            context.stop_generating()
            with pytest.raises(ValueError, match="stopped before"):
                await request
            assert server.saw == []

    run(story)


# payloads


async def payloads(request: Any, context: Any) -> AsyncIterator[Any]:
    assert dict(context.metadata.items()) == request.get("metadata", {})
    if request["kind"] == "error":
        raise KeyError("direct error")
    if request["kind"] == "own":
        raise RuntimeError("own error")
    if request["kind"] == "object":
        yield object()
    if request["kind"] == "nones":
        nones: dict[str, Any] = dict.fromkeys(("id", "event", "comment", "error"))
        yield {"_dynamo_annotated": True, "data": {"value": 42}, **nones}
    if request["kind"] == "reused":
        shared = {"sequence": 0}
        for shared["sequence"] in range(64):
            yield shared
    if request["kind"] == "normal":
        yield request["payload"]
        yield {"_dynamo_annotated": True, "data": request["payload"], "id": "2", "event": "delta", "comment": ["x"]}


def test_payloads_arrive_as_they_were_given():
    async def story():
        async with served(payloads, health_check_payload={"kind": "normal", "payload": {}}) as endpoint:
            client = endpoint.client()
            payload = {"text": "hello 中", "tokens": [1, 2, 65535], "nested": {"t": 0.25}, "none": None, "raw": b"\x00"}
            context = Context()
            context.metadata["trace"] = "one"
            request = {"kind": "normal", "payload": payload, "metadata": {"trace": "one"}}
            bare, envelope = [answer async for answer in await client.generate(request, context=context)]
            assert bare.data() == envelope.data() == payload
            assert (envelope.id(), envelope.event(), envelope.comments()) == ("2", "delta", ["x"])
            (nones,) = [answer async for answer in await client.generate({"kind": "nones"})]
            assert (nones.data(), nones.id(), nones.event(), nones.comments()) == ({"value": 42}, None, None, None)
            reused = [answer.data() async for answer in await client.generate({"kind": "reused"})]
            assert reused == [{"sequence": number} for number in range(64)]
            with pytest.raises(KeyError, match="direct error"):
                await anext(await client.generate({"kind": "error"}))
            with pytest.raises(ValueError, match="a value of type object"):
                await anext(await client.generate({"kind": "object"}))

    run(story)


def test_what_a_stream_ends_with_is_a_value_error_and_itself():
    class OwnError(Exception): ...

    async def failing(request: str) -> AsyncIterator[Any]:
        yield 1
        raise {"own": OwnError("own"), "http": HttpError(409, "taken"), "late": DynamoException("late")}[request]

    async def story():
        async with served(failing) as endpoint:
            kinds: dict[str, type[BemaError]] = {"own": RemoteError, "http": Conflict, "late": DynamoException}
            for request, kind in kinds.items():
                stream = await endpoint.client().generate(request)
                await anext(stream)
                with pytest.raises(ValueError) as caught:
                    await anext(stream)
                error = caught.value
                assert isinstance(error, kind) and type(error).__qualname__ == kind.__qualname__
        with pytest.raises(ValueError, match="no instance"):
            await endpoint.client().generate("own")

    run(story)


@pytest.mark.parametrize(("code", "message"), [(600, "x"), (True, "x"), ("404", "x"), (404, 4)])
def test_an_http_error_is_held_to_its_range(code, message):
    with pytest.raises(ValueError, match="of an HttpError is"):
        HttpError(code, message)


def test_the_message_of_an_http_error_is_bounded():
    error = HttpError(404, "x" * 9000)
    assert (len(error.message), error.code, str(HttpError(404, "no"))) == (8192, 404, "HTTP 404: no")


# metadata


def test_metadata_are_a_live_mapping_of_what_was_given():
    context = Context(id="one", metadata={"tenant": "alpha", "region": "west"})
    assert (context.id(), len(context.metadata)) == ("one", 2)
    assert context.metadata.pop("tenant", None) == "alpha" and "tenant" not in context.metadata
    context.metadata["tenant"] = "beta"
    assert context.metadata.copy() == {"region": "west", "tenant": "beta"} == context.metadata
    context.metadata = {"region": "east"}
    assert (dict(context.metadata), context.id(), repr(context.metadata)) == (
        {"region": "east"},
        "one",
        "{'region': 'east'}",
    )
    context.metadata = context.metadata
    assert dict(context.metadata) == {"region": "east"}
    context.trace_headers()
    context.metadata.clear()
    assert (dict(context.metadata), context.id()) == ({}, "one")


@pytest.mark.parametrize("name", ["request-id", "traceparent"])
def test_the_names_of_the_request_s_own_are_refused_with_what_to_use(name):
    metadata = Context().metadata
    with pytest.raises(Invalid, match=rf"'{name}' cannot be set: .* tells it"):
        metadata[name] = "mine"
    assert name not in metadata and metadata.pop(name, "none") == "none"
    with pytest.raises(KeyError):
        del metadata[name]


def test_metadata_that_a_handler_replaces_are_what_it_sends_on():
    seen: list[dict[str, str]] = []

    async def last(request: str, context: Any) -> AsyncIterator[str]:
        seen.append(dict(context.metadata))
        yield context.id()

    async def story():
        async with served(last) as endpoint, DistributedRuntime(discovery_backend="mem") as runtime:
            client = endpoint.client()

            async def first(request: str, context: Any) -> AsyncIterator[str]:
                context.metadata = {"tenant": "beta"}
                async for answer in await client.round_robin(request, context=context):
                    yield answer.data()

            place = runtime.endpoint("demo.first.generate")
            serving = asyncio.create_task(place.serve_endpoint(first))
            outer = await endpoint.runtime.endpoint("demo.first.generate").client()
            await outer.wait_for_instances()
            stream = await outer.generate("", context=Context("7", {"tenant": "alpha", "region": "west"}))
            assert [answer.data() async for answer in stream] == ["7"]
            assert seen == [{"tenant": "beta"}]
            runtime.shutdown()
            await serving

    run(story)


# runtime data


def meeting() -> DistributedRuntime:
    return DistributedRuntime(asyncio.get_running_loop(), "mem", "tcp")


async def leader(runtime: DistributedRuntime, group: Any) -> int:
    endpoint = runtime.endpoint("demo.group.generate")
    await endpoint.register_endpoint_instance()
    await endpoint.publish(group=group)
    return endpoint.connection_id()


def test_a_leader_is_found_by_what_it_published_before_and_after():
    async def story():
        async with meeting() as one, meeting() as other, meeting() as asks:
            client: Client = await asks.endpoint("demo.group.generate").client()
            waits = [asyncio.ensure_future(client.wait_for_instance_by_runtime_data("group", g, 5)) for g in "ab"]
            leaders = [await leader(one, "a"), await leader(other, "b")]
            assert await asyncio.gather(*waits) == leaders
            assert await client.wait_for_instance_by_runtime_data("group", "b", timeout_s=5) == leaders[1]

    run(story)


def test_a_leader_that_is_none_or_not_the_only_one_is_a_timeout_with_the_count():
    async def story():
        async with meeting() as one, meeting() as other, meeting() as asks:
            client: Client = await asks.endpoint("demo.group.generate").client()
            await leader(one, "a")
            await leader(other, "a")
            for value, count in (("missing", 0), ("a", 2)):
                with pytest.raises(TimeoutError, match=f"last_match_count={count}") as caught:
                    await client.wait_for_instance_by_runtime_data("group", value, timeout_s=0.05)
                assert isinstance(caught.value, CannotConnect)
            await leader(one, 123)
            with pytest.raises(TimeoutError, match="last_match_count=0"):
                await client.wait_for_instance_by_runtime_data("group", "123", timeout_s=0.05)

    run(story)


def test_an_endpoint_that_is_registered_before_it_is_served_says_so():
    async def generate(request: str) -> AsyncIterator[str]:
        yield request

    async def story():
        async with meeting() as runtime, meeting() as asks:
            endpoint: Endpoint = runtime.endpoint("demo.group.generate")
            await endpoint.register_endpoint_instance()
            await endpoint.register_endpoint_instance()
            client: Client = await asks.endpoint("demo.group.generate").client()
            assert await client.wait_for_instances() == [endpoint.connection_id()]
            with pytest.raises(CannotConnect, match="registered, and is not served yet"):
                await anext(await client.generate("hi"))
            await endpoint.unregister_endpoint_instance()
            assert client.instance_ids() == []
            await endpoint.register_endpoint_instance()
            serving = asyncio.create_task(endpoint.serve_endpoint(generate))
            await until(lambda: any(each.endpoints[0].shape != "unary" for each in client.instances()), 2)
            assert [answer.data() async for answer in await client.generate("hi")] == ["hi"]
            with pytest.raises(Conflict, match="served already"):
                await endpoint.serve_endpoint(generate)
            runtime.shutdown()
            await serving

    run(story)


# instances and ways to choose


async def who(request: Any) -> AsyncIterator[Any]:
    yield request


def test_an_instance_tells_its_endpoint_and_how_it_is_reached():
    async def story():
        async with served(who) as endpoint:
            client = await endpoint.client()
            (found,) = client.instances()
            assert isinstance(found, _core.Instance)
            assert [found.instance_id] == client.instance_ids()
            assert str(found) == f"demo/backend/generate/{found.instance_id}"
            assert (found.transport.kind, found.device_type) == ("unix", None)
            assert f"unix:{found.transport.address}" == found.addresses["rpc"][0]
            assert set(client.instance_tcp_addresses()) <= {found.id}

    run(story)


def test_an_instance_may_be_reached_in_several_ways_or_in_none():
    ways = ("unix:/run/x.sock", "tcp:10.0.0.1:4100")
    found = _core.Instance.of(an_instance(addresses={"rpc": ways}), "generate")
    assert found.transports() == [("unix", "/run/x.sock"), ("tcp", "10.0.0.1:4100")]
    assert (found.endpoint, found.transport) == ("generate", found.transports()[0])
    assert _core.Instance.of(an_instance(addresses={}), "generate").transport == ("", "")


def test_calls_with_a_context_take_turns_and_share_one_retry_budget():
    async def story():
        runtimes = [meeting() for _ in range(3)]
        serving = []
        for number, runtime in enumerate(runtimes):

            async def generate(request: Any, number: int = number) -> AsyncIterator[int]:
                yield number

            serving.append(asyncio.create_task(runtime.endpoint("demo.turns.generate").serve_endpoint(generate)))
        async with meeting() as asks:
            client: Client = await asks.endpoint("demo.turns.generate").client()
            await until(lambda: len(client.instance_ids()) == 3)
            turns = [
                [
                    answer.data()
                    async for answer in await client.round_robin(None, context=Context(metadata={"n": str(n)}))
                ]
                for n in range(9)
            ]
            assert turns == turns[:3] * 3 and sorted(turns[:3]) == [[0], [1], [2]]
            ours = client._client.picking("round_robin")
            assert ours.using(metadata={"a": "b"}, timeout=3)._calls is ours._calls
            assert ours.using(pick="random")._calls is not ours._calls
        for runtime in runtimes:
            await runtime.close()
        await asyncio.gather(*serving)

    run(story)


def test_a_message_is_logged_as_said_where_it_was(caplog):
    caplog.set_level(logging.DEBUG)
    _core.log_message("warn", "half %s", "engine.run", "/srv/engine.py", 7)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage(), record.name, record.lineno) == (
        logging.WARNING,
        "half %s",
        "engine.run",
        7,
    )

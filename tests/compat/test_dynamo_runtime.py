"""`bema.compat.dynamo.runtime`: programs written for that runtime, in both of its styles."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import bema.compat.dynamo.runtime as dynamo
from bema.compat.dynamo.runtime import (
    Annotated,
    Cancelled,
    Context,
    DistributedRuntime,
    Endpoint,
    RouterMode,
    UnaryClient,
    dynamo_worker,
    serve_unary_endpoint,
)
from bema.core.errors import Conflict, Refused, RemoteError, StreamCut, Unavailable
from tests.runtime.helpers import until


@contextlib.asynccontextmanager
async def served(handler: Callable[..., Any], serve: str = "serve_endpoint", **options: Any) -> AsyncIterator[Endpoint]:
    """The endpoint of a second runtime, at which the first serves `handler`."""
    async with DistributedRuntime(discovery_backend="mem") as one, DistributedRuntime(discovery_backend="mem") as other:
        place = one.endpoint("demo.backend.generate")
        serving = asyncio.create_task(getattr(place, serve)(handler, **options))
        endpoint = other.namespace("demo").component("backend").endpoint("generate")
        await (await endpoint.client()).wait_for_instances()
        endpoint.theirs = place  # type: ignore[attr-defined]
        yield endpoint
        one.shutdown()
        await serving


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 30))


async def count(request: int) -> AsyncIterator[int]:
    for i in range(request):
        yield i


def test_every_way_to_choose_gives_annotated_answers_or_bare_ones():
    async def story():
        async with served(count) as endpoint:
            client = await endpoint.client()
            (mine,) = client.instance_ids()
            asked: list[Any] = [getattr(client, name) for name in ("generate", "round_robin", "random")]
            for ask in (*asked, client.power_of_two, client.least_loaded):
                stream = await ask(3)
                assert [answer.data() async for answer in stream] == [0, 1, 2]
                assert [answer async for answer in ask(2, annotated=False)] == [0, 1]
            assert [answer.data() async for answer in await client.direct(1, mine)] == [0]
            with pytest.raises(Unavailable):
                await anext(await client.direct(1, 12345))
            assert client.instances()[0].component == "backend"
            for mode in ("round_robin", RouterMode.LeastLoaded, RouterMode.PowerOfTwoChoices):
                assert [a.data() async for a in await endpoint.client(mode).generate(1)] == [0]

    run(story)


def test_an_envelope_says_something_beside_the_answer():
    async def annotating(request: None) -> AsyncIterator[Any]:
        yield {"_dynamo_annotated": True, "data": 1, "id": "a", "event": "token", "comment": ["first"]}
        yield {"_dynamo_annotated": True, "error": "no more"}

    async def story():
        async with served(annotating) as endpoint:
            stream = await endpoint.client().generate(None)
            first = await anext(stream)
            assert (first.data(), first.id(), first.event(), first.comments()) == (1, "a", "token", ["first"])
            assert not first.is_error()
            with pytest.raises(dynamo.DynamoException, match="no more"):
                await anext(stream)

    run(story)
    assert repr(Annotated(1)) == "<annotated (1, None, None, None)>"


class Endless:
    """A handler that tells what becomes of it."""

    def __init__(self) -> None:
        self.contexts: list[Context] = []
        self.ended: list[str] = []

    async def generate(self, request: str, context: Context) -> AsyncIterator[Any]:
        self.contexts.append(context)
        context.metadata["seen"] = "yes"
        try:
            for i in range(10_000):
                if context.is_stopped():
                    return
                yield i
                await asyncio.sleep(0.001)
        finally:
            self.ended.append("killed" if context.is_killed() else "stopped" if context.is_stopped() else "left")


def test_a_context_goes_with_its_request_and_ends_it():
    async def story():
        handler = Endless()
        async with served(handler.generate) as endpoint:
            client = await endpoint.client()
            context = Context("request-1", {"user": "ada"})
            stream = await client.generate("", context=context)
            assert (await anext(stream)).data() == 0
            theirs = handler.contexts[0]
            assert (theirs.id(), theirs.metadata["user"]) == ("request-1", "ada")
            assert len(theirs.trace_id) == 32 and len(theirs.span_id) == 16
            assert theirs.trace_headers()["traceparent"].split("-")[1] == theirs.trace_id
            assert not theirs.is_stopped() and not theirs.is_killed()
            context.stop_generating()
            assert (
                len([answer async for answer in stream]) < 9_000
            )  # it ends, and who asked for it knows that it is cut
            assert handler.ended == ["stopped"]
            context = Context()
            stream = await client.generate("", context=context)
            await anext(stream)
            context.kill()
            with pytest.raises(Cancelled):
                while True:
                    await anext(stream)
            await until(lambda: handler.ended == ["stopped", "killed"], 1)
            assert context.is_killed() and context.is_stopped()

    run(story)


def test_a_context_that_was_stopped_before_calls_nobody():
    async def story():
        handler = Endless()
        async with served(handler.generate) as endpoint:
            context = Context()
            context.stop_generating()
            assert await context.async_killed_or_stopped()
            with pytest.raises(Cancelled, match=r"before demo.backend.generate was called"):
                await endpoint.client().generate("", context=context)
            with pytest.raises(Cancelled):
                await anext(aiter(endpoint.client().generate("", context=context)))
            assert handler.contexts == []

    run(story)


@pytest.mark.alone
@pytest.mark.usefixtures("no_collector")
def test_a_loop_that_is_left_ends_the_handler_within_100_ms():
    async def story():
        handler = Endless()
        async with served(handler.generate) as endpoint:
            stream = endpoint.client().generate("")
            async for _ in stream:
                break
            await stream.aclose()
            await until(lambda: handler.ended == ["killed"], 0.1)

    run(story)


def test_passing_the_context_on_links_the_calls():
    async def story():
        inner = Endless()
        told: list[bool] = []
        async with served(inner.generate) as endpoint:
            client = await endpoint.client()

            async def middle(request: str, context: Context) -> AsyncIterator[Any]:
                waits = asyncio.ensure_future(context.async_killed_or_stopped())
                async for answer in await client.generate(request, context=context):
                    yield answer.data()
                told.append(await waits)

            async with DistributedRuntime(discovery_backend="mem") as runtime:
                place = runtime.endpoint("dyn://demo.middle.generate")
                serving = asyncio.create_task(place.serve_endpoint(middle))
                outer = await endpoint.runtime.endpoint("demo.middle.generate").client()
                await outer.wait_for_instances()
                context = Context("one-id")
                stream = await outer.generate("", context=context)
                await anext(stream)
                context.stop_generating()
                assert len([answer async for answer in stream]) < 9_000
                assert inner.ended == ["stopped"] and told == [True]
                assert [theirs.id() for theirs in inner.contexts] == ["one-id"]
                runtime.shutdown()
                await serving

    run(story)


def test_the_server_may_stop_and_end_its_own_call():
    async def stopping(request: bool, context: Context) -> AsyncIterator[int]:
        yield 1
        if request:
            context.kill()
        context.stop_generating()
        await asyncio.sleep(0)

    async def story():
        async with served(stopping) as endpoint:
            for killed in (False, True):
                stream = await endpoint.client().generate(killed)
                await anext(stream)
                with pytest.raises(StreamCut):
                    await anext(stream)

    run(story)


def test_requests_go_in_while_answers_come_out():
    async def echo(requests: Any, context: Context) -> AsyncIterator[Any]:
        async for request in requests:
            yield request * 2

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def story():
        async with served(echo, "serve_bidirectional_endpoint") as endpoint:
            assert [a.data() async for a in await endpoint.client().generate(numbers())] == [2, 4]

    run(story)


def test_one_reply_and_exactly_one():
    async def story():
        async def once(request: str, context: Context) -> str:
            return request + context.id()

        async with DistributedRuntime(discovery_backend="mem") as runtime:
            endpoint = runtime.endpoint("demo.unary.once")
            serving = asyncio.create_task(serve_unary_endpoint(endpoint, once))
            async with DistributedRuntime(discovery_backend="mem") as calling:
                client = calling.endpoint("demo.unary.once").client()
                await client.wait_for_instances()
                assert await UnaryClient(client).complete("id-", context=Context("7")) == "id-7"
            runtime.shutdown()
            await serving
        async with served(count) as endpoint:
            with pytest.raises(RuntimeError, match="one reply was asked for, and 2 came"):
                await UnaryClient(endpoint.client()).complete(2)

    run(story)


def test_an_endpoint_sleeps_and_wakes_and_publishes():
    async def story():
        async with served(count) as endpoint:
            theirs: Endpoint = endpoint.theirs  # type: ignore[attr-defined]
            client = await endpoint.client()
            await theirs.unregister_endpoint_instance()
            assert client.instance_ids() == []
            with pytest.raises(dynamo.DynamoException):
                await client.generate(1)
            await theirs.register_endpoint_instance()
            assert client.instance_ids() == [theirs.connection_id()] == [theirs.lease_id()]
            waits = asyncio.ensure_future(client.wait_for_instance_by_runtime_data("model", "small"))
            with pytest.raises(Unavailable, match="model"):
                await client.wait_for_instances_by_runtime_data("model", "small", 1, 0.02)
            assert not waits.done()
            await theirs.publish(model="small")
            assert await waits == theirs.connection_id()
            await theirs.publish(model=None)
            assert client.instances()[0].data == {}
            runtime: Any = theirs.runtime
            runtime.set_health_status(False)
            await until(lambda: client.instance_ids() == [])
            runtime.set_health_status(True)
            await until(lambda: client.instance_ids() != [])
            with pytest.raises(Conflict, match="served already"):
                await theirs.serve_endpoint(count)

    run(story)


def test_an_endpoint_that_does_not_answer_its_health_check_gets_nobody():
    hangs = True

    async def generate(request: dict[str, str]) -> AsyncIterator[str]:
        while hangs:
            await asyncio.sleep(0.005)
        yield request["text"]

    async def story():
        nonlocal hangs
        async with DistributedRuntime(discovery_backend="mem") as runtime:
            runtime.host.limits = runtime.limits.but(health=0.01, health_answer=0.05)
            endpoint = runtime.endpoint("demo.checked.generate")
            view = await runtime.view("demo", "checked")
            serving = asyncio.create_task(
                endpoint.serve_endpoint(
                    generate, metrics_labels=[("model", "small")], health_check_payload={"text": "are you there?"}
                )
            )
            await until(lambda: len(view.instances()) == 1)
            await asyncio.sleep(0.2)
            assert not view.instances()[0].routable()
            hangs = False
            await until(lambda: view.instances()[0].routable())
            hangs = True
            await until(lambda: not view.instances()[0].routable())
            hangs = False
            runtime.shutdown()
            await serving

    run(story)


@pytest.mark.parametrize(
    "options",
    [
        {"discovery_backend": "etcd"},
        {"discovery_backend": "kubernetes"},
        {"request_plane": "nats"},
        {"enable_nats": True},
        {"event_plane": "zmq"},
        {"response_plane": "quic"},
    ],
    ids=lambda options: "-".join(map(str, *options.items())),
)
def test_what_needs_a_server_or_another_protocol_is_refused_with_its_replacement(options):
    async def story():
        with pytest.raises(Refused, match="is not here") as refused:
            DistributedRuntime(**options)
        assert refused.value.fix.startswith(("Use ", "Leave "))

    run(story)


def test_names_of_models_devices_and_etcd_are_refused_with_their_replacement():
    async def story():
        for name in ("EtcdKvCache", "KvRouter", "register_llm", "ZmqKvEventPublisher"):
            with pytest.raises(Refused, match=f"{name} is not here") as refused:
                getattr(dynamo, name)
            assert len(refused.value.fix) > 20
        with pytest.raises(ImportError, match="EtcdKvCache is not here"):
            from bema.compat.dynamo.runtime import EtcdKvCache  # type: ignore[attr-defined]  # noqa: F401
        async with DistributedRuntime(discovery_backend="mem") as runtime:
            anything: Any = runtime
            with pytest.raises(Refused, match="allocate_port_block is not here"):
                anything.allocate_port_block(3)
            with pytest.raises(Refused, match="metrics is not here"):
                anything.endpoint("a.b.c").metrics  # noqa: B018
            with pytest.raises(AttributeError, match="has no 'nothing'"):
                anything.nothing  # noqa: B018
            with pytest.raises(ValueError, match=r"'a\.b' is not namespace\.component\.endpoint"):
                runtime.endpoint("a.b")
            for mode in (RouterMode.KV, "device_aware_weighted"):
                with pytest.raises(Refused, match="tokens or devices"):
                    runtime.endpoint("a.b.c").client(mode)
            with pytest.raises(dynamo.InvalidArgument):
                DistributedRuntime(discovery_backend="mystery")

    run(story)


def test_its_exceptions_cross_the_wire():
    async def failing(request: str) -> AsyncIterator[int]:
        if request == "none":
            yield 1
        known = {"invalid": dynamo.InvalidArgument("bad"), "busy": dynamo.RouterQueueLimitExceeded("full")}
        raise known.get(request, dynamo.Cancelled("gone"))

    async def story():
        async with served(failing) as endpoint:
            client = endpoint.client()
            for request, kind in (
                ("invalid", dynamo.InvalidArgument),
                ("busy", dynamo.RouterQueueLimitExceeded),
                ("", dynamo.Cancelled),
            ):
                with pytest.raises(kind):
                    await anext(aiter(client.generate(request)))

    run(story)
    assert issubclass(dynamo.Unknown, dynamo.DynamoException) and dynamo.Unknown is RemoteError


WORKER = """
import asyncio
from bema.compat.dynamo.runtime import DistributedRuntime, dynamo_worker

async def generate(request):
    yield "token"

@dynamo_worker(register_shutdown=True)
async def worker(runtime: DistributedRuntime):
    component = runtime.namespace("demo").component("plain")
    await component.create_service()
    print("serving", flush=True)
    await component.endpoint("generate").serve_endpoint(generate, graceful_shutdown=True)
    print("ended", flush=True)

asyncio.run(worker())
"""


def test_a_worker_that_registers_its_shutdown_drains(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env={**os.environ, "BEMA_STATE_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "serving\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == "ended\n"
    assert process.returncode == 0


def test_a_worker_is_given_its_arguments():
    given: list[Any] = []

    @dynamo_worker()
    async def worker(runtime: Any, *words: str) -> None:
        given.extend([type(runtime), *words])

    run(lambda: worker("a", "b"))
    assert given == [DistributedRuntime, "a", "b"]

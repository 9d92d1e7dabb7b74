"""Every name of that runtime is here, or says in a sentence what to use."""

import inspect
from typing import Any

import pytest

import bema.compat.dynamo.runtime as dynamo
from bema.compat.dynamo.refused import NAMES, NotHere
from bema.compat.dynamo.runtime import Client, Context, DistributedRuntime
from bema.core.naming import show_instance_id
from tests.compat.test_dynamo_runtime import run, served

# by where they are found: those that work, those that are refused
MODULE = (
    """
    Client Context DistributedRuntime DynamoException Unknown InvalidArgument CannotConnect Disconnected ConnectionTimeout
    Cancelled EngineShutdown StreamIncomplete WorkerUnavailable RouterQueueLimitExceeded RouterMode Annotated UnaryClient
    dynamo_worker dynamo_endpoint serve_unary_endpoint
    """,
    "EtcdKvCache CancellationToken KvRouter register_llm",
)
RUNTIME = (
    "endpoint namespace shutdown set_health_status register_engine_route event_loop system_status_server_url",
    "detached to_capsule child_token do_not_use_etcd_client etcd_client allocate_port_block",
)
ENDPOINT = (
    """
    serve_endpoint serve_bidirectional_endpoint client connection_id lease_id unregister_endpoint_instance
    register_endpoint_instance
    """,
    "metrics first_token_source",
)
CLIENT = (
    """
    instance_ids instances wait_for_instances wait_for_instances_by_runtime_data wait_for_instance_by_runtime_data
    round_robin random direct generate power_of_two least_loaded
    """,
    "device_aware_weighted",
)
CONTEXT = (
    """
    id is_stopped is_killed stop_generating async_killed_or_stopped metadata detached trace_id span_id parent_span_id
    trace_headers
    """,
    "current_span start_span",
)


def test_every_name_works_or_names_what_to_use():
    async def story():
        async with DistributedRuntime(discovery_backend="mem") as runtime:
            endpoint = runtime.namespace("demo").component("backend").endpoint("generate")
            places: list[tuple[Any, tuple[str, str]]] = [
                (dynamo, MODULE),
                (runtime, RUNTIME),
                (endpoint, ENDPOINT),
                (endpoint.client(), CLIENT),
                (Context(), CONTEXT),
            ]
            for place, (works, refused) in places:
                for name in works.split():
                    getattr(place, name)
                for name in refused.split():
                    with pytest.raises(NotHere, match=f"{name} is not here") as caught:
                        getattr(place, name)
                    assert caught.value.fix == NAMES[name] and caught.value.fix.endswith(".")
                with pytest.raises(AttributeError, match="has no 'nothing'"):
                    place.nothing  # noqa: B018

    run(story)


def test_a_request_has_a_span_of_its_own_below_the_one_it_came_from():
    seen: list[tuple[str, str, str | None]] = []

    async def handler(request: int, context: Context):
        for each in (context, context.detached("other")):
            seen.append((each.trace_id, each.span_id, each.parent_span_id))
        yield context.trace_headers()["traceparent"]

    async def story():
        async with served(handler) as endpoint:
            asks = Context(metadata={"user": "ada"})
            assert asks.parent_span_id is None and asks.span_id == asks.span_id
            (answer,) = [item async for item in endpoint.client().generate(1, annotated=False, context=asks)]
            (trace, span, parent), (detached_trace, detached_span, detached_parent) = seen
            assert (trace, parent) == (asks.trace_id, asks.span_id)
            assert (detached_trace, detached_parent) == (trace, span)
            assert len({span, parent, detached_span}) == 3
            assert answer.split("-")[1:3] == [trace, span]

    run(story)


def test_a_trace_that_is_none_is_begun_anew():
    context = Context(metadata={"traceparent": "nonsense-with-some-dashes"})
    assert context.parent_span_id is None
    assert len(context.trace_id) == 32


def test_a_detached_context_does_not_end_with_the_one_it_came_from():
    context = Context("one", {"user": "ada"})
    other = context.detached("two")
    context.metadata["user"] = "grace"
    context.stop_generating()
    assert (other.id(), other.metadata["user"], other.is_stopped()) == ("two", "ada", False)
    assert Context().detached().id()


def test_the_lease_of_an_endpoint_is_its_instance():
    async def story():
        async with DistributedRuntime(discovery_backend="mem") as runtime:
            endpoint = runtime.endpoint("demo.backend.generate")
            assert endpoint.lease_id() == endpoint.connection_id()
            assert len(show_instance_id(endpoint.lease_id())) == 13
            assert inspect.isawaitable(endpoint.client()) and isinstance(endpoint.client(), Client)

    run(story)

"""A service's endpoints as HTTP: JSON in, JSON or events out, over the same RPC that everybody uses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from bema.core.call import Call
from bema.core.errors import BemaError, Disconnected, Invalid
from bema.core.instance import EndpointInfo, Instance
from bema.deploy.model.deployment import Activation
from bema.gateway.doors.endpoint import Doors, arguments_of
from bema.gateway.http.listener import DataListener
from bema.gateway.routing.activator import Activate
from bema.gateway.routing.table import RoutingTable
from bema.runtime.discovery.discovery import LiveView
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.distributed import DistributedRuntime
from bema.runtime.process.host import LaunchOptions
from bema.runtime.rpc import signatures
from bema.runtime.rpc.pool import ConnectionPool
from tests.gateway.gate import Gate, request, unknown, until
from tests.gateway.http.test_listener import run

pytestmark = pytest.mark.usefixtures("every_loop")

ID = "0b9a7a3c-1111-4222-8333-123456789abc"
PATH = f"/gateway/{ID}"


class Order(msgspec.Struct):
    what: str
    many: int = 1


class Shop:
    """A service of plain methods."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.pulled = 0
        self.doors: Doors

    async def buy(self, order: Order) -> str:
        return f"{order.many} {order.what}"

    async def add(self, a: int, b: int = 2) -> dict[str, int]:
        return {"sum": a + b}

    async def tick(self, count: int) -> AsyncIterator[dict[str, int]]:
        for n in range(count):
            yield {"n": n}

    async def fail(self, after: int) -> AsyncIterator[int]:
        for n in range(after):
            yield n
        raise ValueError("no more")

    async def refuse(self) -> None:
        raise Invalid("not today", day="monday")

    async def crash(self) -> None:
        raise ZeroDivisionError("by zero")

    async def pull(self, call: Call) -> None:
        """Break the connection that the call came on; it may be called again."""
        self.pulled += 1
        call.conn.abort(Disconnected("pulled"))  # type: ignore[attr-defined]

    async def wait(self) -> str:
        self.waiting.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "late"


@asynccontextmanager
async def shop(activate: Activate = unknown) -> AsyncIterator[tuple[Gate, Shop]]:
    """A listener, and the service behind it as a deployed instance."""
    import socket

    discovery = MemoryDiscovery()
    service = Shop()
    async with (
        DistributedRuntime(discovery, options=LaunchOptions(deployment=ID)) as serving,
        DistributedRuntime(discovery) as calling,
    ):
        component = serving.namespace("demo").component("shop")
        for name in ("buy", "add", "tick", "fail", "refuse", "crash", "pull", "wait"):
            method = getattr(service, name)
            spec = signatures.read(method, name, method=False)
            await component.add(msgspec.structs.replace(spec, idempotent=name == "pull"), method)
        await component.show()
        view = await discovery.view()
        table = RoutingTable(view)
        doors = Doors(calling.pool, table.instances_of)
        listener = DataListener(table, activate, doors.serve)
        bound = socket.create_server(("127.0.0.1", 0))
        await listener.listen(bound)
        service.doors = doors
        try:
            yield Gate(listener, discovery, bound.getsockname()[1]), service
        finally:
            await listener.drain(0)


async def post(g: Gate, endpoint: str, body: object = None, *headers: str):
    raw = b"" if body is None else json.dumps(body).encode()
    return await g.ask(request(f"{PATH}/{endpoint}", *headers, method="POST", body=raw))


def test_parameters_by_name_and_the_fields_of_the_only_one():
    async def story():
        async with shop() as (g, _):
            assert json.loads((await post(g, "add", {"a": 1})).body) == {"sum": 3}
            assert json.loads((await post(g, "add", {"a": 1, "b": 5})).body) == {"sum": 6}
            assert json.loads((await post(g, "buy", {"what": "tea", "many": 2})).body) == "2 tea"
            assert json.loads((await post(g, "buy", {"order": {"what": "tea"}})).body) == "1 tea"

    run(story())


def test_one_connection_carries_many_calls():
    async def story():
        async with shop() as (g, _), await g.client() as client:
            for n in range(3):
                client.send(request(f"{PATH}/add", method="POST", body=b'{"a": %d}' % n))
                answer = await client.answer()
                assert (answer.headers["content-type"], json.loads(answer.body)) == ("application/json", {"sum": n + 2})

    run(story())


def test_a_stream_comes_as_events():
    async def story():
        async with shop() as (g, _):
            answer = await post(g, "tick", {"count": 2})
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.body == b'data: {"n":0}\n\ndata: {"n":1}\n\nevent: end\ndata: {}\n\n'
            assert (await post(g, "tick", {"count": 0})).body == b"event: end\ndata: {}\n\n"

    run(story())


def test_a_stream_that_fails_ends_with_the_error_and_without_its_traceback():
    async def story():
        async with shop() as (g, _):
            answer = await post(g, "fail", {"after": 1})
            first, error = answer.body.split(b"\n\n")[:2]
            assert first == b"data: 0"
            kind, data = error.split(b"\n")
            assert kind == b"event: error"
            told = json.loads(data.removeprefix(b"data: "))["error"]
            assert "no more" in told["message"]
            assert told["trace_id"] == answer.headers["x-request-id"]
            assert b"Traceback" not in answer.body
            assert b".py" not in answer.body

    run(story())


def test_a_stream_that_fails_before_its_first_value_has_the_status_of_its_error():
    async def story():
        async with shop() as (g, _):
            assert (await post(g, "fail", {"after": 0})).status == 500

    run(story())


@pytest.mark.parametrize(
    ("endpoint", "body", "status", "code"),
    [
        ("nothing", None, 404, "not_found"),
        ("refuse", None, 422, "invalid_argument"),
        ("add", {"a": "one"}, 422, "invalid_argument"),
        ("add", {}, 422, "invalid_argument"),
        ("add", {"c": 1}, 422, "invalid_argument"),
        ("add", [1, 2], 422, "invalid_argument"),
        ("crash", None, 500, "remote_error"),
    ],
)
def test_errors_leave_with_the_status_of_their_code(endpoint, body, status, code):
    async def story():
        async with shop() as (g, _):
            answer = await post(g, endpoint, body)
            assert (answer.status, answer.error["code"]) == (status, code)
            assert b"Traceback" not in answer.body

    run(story())


@pytest.mark.parametrize("body", [b"{a", b'{"a": "\xff"}', b"[" * 100_000], ids=["cut", "latin", "deep"])
def test_a_body_that_is_not_json_is_400(body):
    async def story():
        async with shop() as (g, _):
            answer = await g.ask(request(f"{PATH}/add", method="POST", body=body))
            assert (answer.status, answer.error["code"]) == (400, "bad_request")

    run(story())


def test_get_lists_the_endpoints_and_calls_none():
    async def story():
        async with shop() as (g, _):
            listed = {e["name"]: e for e in json.loads((await g.get(PATH)).body)["endpoints"]}
            assert listed["tick"]["shape"] == "stream"
            assert listed["buy"]["fields"] == ["what", "many"]
            answer = await g.get(f"{PATH}/add")
            assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")

    run(story())


def test_a_listing_has_the_schemas_and_openapi_says_the_same():
    async def story():
        async with shop() as (g, _):
            said = json.loads((await g.get(PATH)).body)
            endpoints = {e["name"]: e for e in said["endpoints"]}
            assert endpoints["add"]["request"]["required"] == ["a"]
            assert endpoints["buy"]["request"]["properties"] == {"order": {"$ref": "#/$defs/Order"}}
            assert said["$defs"]["Order"]["properties"]["many"] == {"type": "integer", "default": 1}
            document = json.loads((await g.get(f"{PATH}/openapi.json")).body)
            assert (document["openapi"], document["servers"]) == ("3.1.0", [{"url": PATH}])
            buy = document["paths"]["/buy"]["post"]
            assert {"$ref": "#/components/schemas/Order"} in buy["requestBody"]["content"]["application/json"][
                "schema"
            ]["anyOf"]
            tick = document["paths"]["/tick"]["post"]
            assert list(tick["responses"]["200"]["content"]) == ["text/event-stream"]
            assert "#/$defs" not in json.dumps(document)
            assert (await g.ask(request(f"{PATH}/openapi.json", method="POST"))).status == 405

    run(story())


@pytest.mark.parametrize(
    ("endpoint", "body", "status"), [("add", {"a": 1}, 200), ("tick", {"count": 2}, 200), ("crash", None, 500)]
)
def test_who_waited_for_a_start_is_told_how_long_it_took_whatever_the_answer_and_nobody_else_is(endpoint, body, status):
    async def activate(deployment: str, wait: float) -> Activation:
        return Activation("starting")

    async def story():
        async with shop(activate) as (g, _):
            [shown] = g.listener.table.instances_of(ID).instances()
            data = {**shown.data, "start": {"kind": "zygote"}, "phases": {"fork": 8, "import": 25}}
            g.discovery.put(msgspec.structs.replace(shown, ready=False))
            waiting = asyncio.create_task(post(g, endpoint, body))
            await until(g.listener.dispatcher.admission.lines, 30)
            g.discovery.put(msgspec.structs.replace(shown, data=data))
            answer = await waiting
            assert (answer.status, answer.headers["server-timing"]) == (status, 'bema-start;desc="zygote";dur=33')
            assert "server-timing" not in (await post(g, endpoint, body)).headers

    run(story())


def test_a_deadline_ends_the_call():
    async def story():
        async with shop() as (g, service):
            answer = await post(g, "wait", None, "x-timeout-ms: 100")
            assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")
            await asyncio.wait_for(service.cancelled.wait(), 5)
            assert (await post(g, "wait", None, "x-timeout-ms: soon")).status == 400

    run(story())


def test_a_client_that_leaves_cancels_its_call():
    async def story():
        async with shop() as (g, service):
            async with await g.client() as client:
                client.send(request(f"{PATH}/wait", method="POST"))
                await asyncio.wait_for(service.waiting.wait(), 5)
            await asyncio.wait_for(service.cancelled.wait(), 5)
            await until(lambda: not any(a.in_flight for a in g.listener.activities.all()))

    run(story())


def test_an_expectation_is_answered_here():
    async def story():
        async with shop() as (g, _), await g.client() as client:
            client.send(request(f"{PATH}/add", "Expect: 100-continue", "Content-Length: 8", method="POST"))
            assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b'{"a": 3}')
            assert json.loads((await client.answer()).body) == {"sum": 5}

    run(story())


@pytest.mark.parametrize(
    ("body", "parameters", "fields", "arguments"),
    [
        (b"", ("a",), None, {}),
        (b" \n", ("a",), None, {}),
        (b'{"a": 1}', ("a",), None, {"a": 1}),
        (b'{"x": 1}', ("a",), ("x",), {"a": {"x": 1}}),
        (b'{"a": {"x": 1}}', ("a",), ("x",), {"a": {"x": 1}}),
        (b'{"a": 1}', ("a",), ("a",), {"a": {"a": 1}}),
        (b"{}", ("a",), ("x",), {"a": {}}),
        (b'{"x": 1}', None, None, {"x": 1}),
    ],
)
def test_what_a_body_means(body, parameters, fields, arguments):
    assert arguments_of(body, EndpointInfo("e", parameters=parameters, fields=fields)) == arguments


@pytest.mark.parametrize("body", [b"1", b"[]", b'"x"', b"null", b"{", b"{} {}"])
def test_a_body_must_be_an_object(body):
    with pytest.raises(BemaError):
        arguments_of(body, EndpointInfo("e"))


def test_retries_of_a_failing_service_stay_within_one_budget_for_all_requests():
    requests = 150

    async def story():
        async with shop() as (g, service), await g.client() as client:
            for _ in range(requests):
                client.send(request(f"{PATH}/pull", method="POST"))
                assert (await client.answer()).status == 502
            # a budget per request would repeat each of them four times
            assert requests < service.pulled <= requests + 256 + requests // 5
            await post(g, "add", {"a": 1})
            assert {route for kept in service.doors._kept.values() for route in kept.by_route} == {
                "demo.shop.pull",
                "demo.shop.add",
            }

    run(story())


def test_the_clients_of_a_deployment_go_with_its_last_instance():
    async def story():
        async with shop() as (g, service):
            await post(g, "add", {"a": 1})
            assert list(service.doors._kept) == [ID]
            [shown] = g.listener.table.instances_of(ID).instances()
            g.discovery.drop(shown.id)
            assert service.doors._kept == {}

    run(story())


def test_the_clients_of_many_deployments_are_bounded(monkeypatch):
    monkeypatch.setattr("bema.gateway.doors.endpoint._MOST", 3)
    view = LiveView((None, None), [Instance(id=1, namespace="demo", component="shop")], lambda view: None)

    async def story():
        doors = Doors(ConnectionPool(), lambda deployment: view)
        first = doors._client("d0", "demo.shop.add")
        assert doors._client("d0", "demo.shop.add") is first
        for n in range(1, 5):
            doors._client(f"d{n}", "demo.shop.add")
        assert list(doors._kept) == ["d2", "d3", "d4"]
        assert len(view._subscribers) == 3

    asyncio.run(story())

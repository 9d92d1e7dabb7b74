"""Durable calls over HTTP: accepted, looked at, followed and cancelled, in a service that keeps its calls in a file."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bema import Call, endpoint, service
from bema.core.naming import is_call_id
from bema.gateway.doors.durable_calls import CallPosition
from bema.gateway.doors.endpoint import Doors
from bema.gateway.http.listener import DataListener
from bema.gateway.routing.table import RoutingTable
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.distributed import DistributedRuntime
from bema.runtime.process.host import LaunchOptions
from bema.sdk import lifecycle
from tests.gateway.gate import Client, Gate, request, unknown
from tests.gateway.http.test_listener import run

ID = "0b9a7a3c-1111-4222-8333-123456789abc"
PATH = f"/gateway/{ID}"


@pytest.fixture(autouse=True)
def state_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))


async def charge(number: int) -> str:
    return f"receipt {number}"


async def ship(receipt: str) -> str:
    return f"{receipt}, shipped"


@service(name="shop", namespace="demo")
class Shop:
    @endpoint(durable=True)
    async def order(self, number: int, call: Call, many: int = 1) -> str:
        receipt = await call.step(charge, number * many)
        return await call.step(ship, receipt)

    @endpoint(durable=True)
    async def approve(self, what: str, call: Call) -> str:
        agreed = await call.ask(bool, f"{what}?")
        return await call.step(ship, f"{what}: {'yes' if agreed else 'no'}")

    @endpoint(durable=True)
    async def refuse(self, call: Call) -> None:
        raise ZeroDivisionError("not today")

    @endpoint(idempotent=True)
    async def send(self, number: int) -> int:
        return number

    @endpoint()
    async def plain(self, number: int) -> int:
        return number


class Customer:
    """Sends requests to the shop's door; `answer` gives a call what it asks for."""

    def __init__(self, gate: Gate, runtime: DistributedRuntime) -> None:
        self.gate = gate
        self._approve = runtime.namespace("demo").component("shop").endpoint("approve").client()

    async def post(self, name: str, body: dict[str, object], *headers: str):
        raw = json.dumps(body).encode()
        return await self.gate.ask(request(f"{PATH}/{name}", *headers, method="POST", body=raw))

    async def accepted(self, name: str, **body: object) -> str:
        answer = await self.post(name, body, "Prefer: respond-async")
        assert answer.status == 202
        where: str = answer.headers["location"]
        return where

    async def get(self, path: str, *headers: str, method: str = "GET"):
        return await self.gate.get(path, *headers, method=method)

    async def answer(self, where: str, value: object) -> None:
        await (await self._approve).ref(where.rpartition("/")[2]).answer(value)

    async def reached(self, where: str, state: str) -> None:
        """Follow the events of a call until it is in that state."""
        async with await self.gate.client() as client:
            async for event in events(client, where):
                if event.get("event") == "state" and event["data"]["state"] == state:
                    return


async def events(client: Client, where: str, *headers: str) -> AsyncIterator[dict[str, Any]]:
    """The events of a call as they come, each with its fields."""
    client.send(request(f"{where}/events", *headers))
    head = await client.head()
    assert b" 200 OK" in head, head
    assert b"content-type: text/event-stream" in head
    async for chunk in client.chunks():
        fields = dict(line.split(": ", 1) for line in chunk.decode().splitlines() if not line.startswith(":") and line)
        if fields:
            yield {**fields, "data": json.loads(fields["data"])}


@asynccontextmanager
async def customer() -> AsyncIterator[Customer]:
    discovery = MemoryDiscovery()
    async with (
        DistributedRuntime(discovery, options=LaunchOptions(deployment=ID, embedded=True)) as serving,
        DistributedRuntime(discovery) as calling,
    ):
        life = asyncio.create_task(lifecycle.start(Shop, serving))
        table = RoutingTable(await discovery.view())
        listener = DataListener(table, unknown, Doors(calling.pool, table.instances_of).serve)
        bound = socket.create_server(("127.0.0.1", 0))
        await listener.listen(bound)
        async with asyncio.timeout(20):
            await table.routed(ID)
        try:
            yield Customer(Gate(listener, discovery, bound.getsockname()[1]), calling)
        finally:
            await listener.drain(0)
            serving.stop()
            await life


def test_a_call_that_is_waited_for_is_answered_as_ever_and_can_be_had_again():
    async def story():
        async with customer() as c:
            answer = await c.post("order", {"number": 7})
            assert (answer.status, json.loads(answer.body)) == (200, "receipt 7, shipped")
            again = await c.get(answer.headers["content-location"])
            assert (again.status, again.body) == (200, answer.body)
            assert "preference-applied" not in answer.headers

    run(story())


def test_a_call_that_need_not_be_waited_for_is_accepted_and_has_an_address():
    async def story():
        async with customer() as c:
            answer = await c.post("approve", {"what": "tea"}, "Prefer: respond-async")
            where, said = answer.headers["location"], json.loads(answer.body)
            assert (answer.status, answer.headers["preference-applied"]) == (202, "respond-async")
            assert is_call_id(said["id"])
            assert (said["url"], where) == (where, f"{PATH}/calls/{said['id']}")
            await c.reached(where, "asking")
            status = json.loads((await c.get(where)).body)
            assert (status["state"], status["endpoint"], status["waits"][0]["prompt"]) == ("asking", "approve", "tea?")
            assert not {"arguments", "metadata", "principal", "steps"} & status.keys()
            early = await c.get(status["result"])
            assert (early.status, early.headers["location"]) == (202, where)
            assert int(early.headers["retry-after"]) >= 1
            waiting = asyncio.create_task(c.get(status["result"], "Prefer: wait=20"))
            await c.answer(where, True)
            assert json.loads((await waiting).body) == "tea: yes, shipped"
            assert json.loads((await c.get(where)).body)["state"] == "done"
            for page in ("", "/result", "/events"):
                async with await c.gate.client() as client:
                    client.send(request(where + page, method="HEAD"))
                    assert (await client.answer("HEAD")).status == 200

    run(story())


def test_who_waits_for_some_seconds_gets_the_result_or_the_address():
    async def story():
        async with customer() as c:
            in_time = await c.post("order", {"number": 1}, "Prefer: respond-async, wait=20")
            assert (in_time.status, in_time.headers["preference-applied"]) == (200, "wait=20")
            late = await c.post("approve", {"what": "tea"}, "Prefer: wait=0")
            assert (late.status, late.headers["preference-applied"]) == (202, "wait=0")
            cut = await c.post("approve", {"what": "tea"}, "x-timeout-ms: 50")
            assert (cut.status, cut.error["code"]) == (504, "deadline_exceeded")
            status = json.loads((await c.get(cut.headers["location"])).body)
            assert status["state"] not in ("done", "failed", "cancelled"), "it goes on"

    run(story())


def test_the_same_key_gives_the_same_call():
    async def story():
        async with customer() as c:
            first = await c.post("order", {"number": 7, "many": 1}, 'Idempotency-Key: "seven"')
            again = await c.post("order", {"many": 1, "number": 7}, "Idempotency-Key: seven")
            assert (again.body, again.headers["content-location"]) == (first.body, first.headers["content-location"])
            other = await c.post("order", {"number": 8}, "Idempotency-Key: seven")
            assert (other.status, other.error["code"]) == (409, "call_exists")
            bad = await c.post("order", {"number": 8}, 'Idempotency-Key: "open')
            assert (bad.status, bad.error["code"]) == (400, "bad_request")
            unlike = await c.post("order", {"number": 7})
            assert unlike.headers["content-location"] != first.headers["content-location"]

    run(story())


def test_a_failure_is_answered_as_a_direct_call_answers_it():
    async def story():
        async with customer() as c:
            direct = await c.post("refuse", {})
            where = await c.accepted("refuse")
            later = await c.get(f"{where}/result", "Prefer: wait=20")
            assert (direct.status, direct.error["code"]) == (500, "remote_error")
            assert (later.status, later.error["message"]) == (direct.status, direct.error["message"])
            assert b"Traceback" not in later.body
            wrong = await c.post("order", {"number": "seven"}, "Prefer: respond-async")
            assert (wrong.status, wrong.error["code"]) == (422, "invalid_argument")

    run(story())


def test_events_tell_each_step_and_state_once_and_go_on_behind_the_last_that_was_read():
    async def story():
        async with customer() as c:
            where = await c.accepted("approve", what="tea")
            async with await c.gate.client() as client:
                async for event in events(client, where):
                    if event["event"] == "state" and event["data"]["state"] == "asking":
                        break
            await c.answer(where, True)
            async with await c.gate.client() as client:
                rest = [event async for event in events(client, where, f"Last-Event-ID: {event['id']}")]
            assert [each["data"]["what"] for each in rest if each["event"] == "step"] == ["ask 1 bool", "step 2 ship"]
            assert "asking" not in [each["data"].get("state") for each in rest], "it was told before"
            assert (rest[-2]["data"]["state"], rest[-1]["event"]) == ("done", "end")
            assert "yes" not in json.dumps(rest), "values are for those who may have the result"
            told = await c.get(f"{where}/events", f"Last-Event-ID: {rest[-2]['id']}")
            assert (told.status, "content-length" in told.headers) == (204, False)
            async with await c.gate.client() as client:
                whole = [event async for event in events(client, where, "Last-Event-ID: ???")]
            assert [each["data"]["order"] for each in whole if each["event"] == "step"] == [1, 2]

    run(story())


def test_a_quiet_call_is_told_by_comments(monkeypatch):
    monkeypatch.setattr("bema.gateway.doors.durable_calls._ROUND", 0.05)

    async def story():
        async with customer() as c:
            where = await c.accepted("approve", what="tea")
            async with await c.gate.client() as client:
                client.send(request(f"{where}/events"))
                await client.head()
                async for chunk in client.chunks():
                    if chunk == b":\n\n":
                        return

    run(story())


def test_a_call_is_cancelled_by_its_address():
    async def story():
        async with customer() as c:
            where = await c.accepted("approve", what="tea")
            await c.reached(where, "asking")
            assert (await c.get(where, method="DELETE")).status == 202
            await c.reached(where, "cancelled")
            assert (await c.get(where, method="DELETE")).status == 200
            gone = await c.get(f"{where}/result")
            assert (gone.status, gone.error["code"]) == (409, "call_cancelled")

    run(story())


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        (f"calls/{'0' * 21}", "GET", 404),
        (f"calls/{'0' * 21}", "DELETE", 404),
        (f"calls/{'0' * 21}/result", "GET", 404),
        (f"calls/{'0' * 21}/events", "GET", 404),
        (f"calls/{'0' * 21}/arguments", "GET", 404),
        ("calls/x", "GET", 404),
        (f"calls/{'0' * 21}", "POST", 405),
        (f"calls/{'0' * 21}/events", "DELETE", 405),
    ],
)
def test_what_is_no_call_is_refused(path, method, status):
    async def story():
        async with customer() as c:
            assert (await c.get(f"{PATH}/{path}", method=method)).status == status

    run(story())


def test_an_idempotent_endpoint_is_called_later_by_who_prefers_that_and_by_nobody_else():
    async def story():
        async with customer() as c:
            for preferred in ("Prefer: wait=5", "Idempotency-Key: mine"):
                answer = await c.post("send", {"number": 3}, preferred)
                assert (answer.status, json.loads(answer.body)) == (200, 3)
                assert "content-location" not in answer.headers
            key = "Idempotency-Key: letter"
            answer = await c.post("send", {"number": 3}, key, "Prefer: respond-async")
            assert (answer.status, answer.headers["preference-applied"]) == (202, "respond-async")
            where = answer.headers["location"]
            result = await c.get(f"{where}/result", "Prefer: wait=20")
            assert (result.status, json.loads(result.body)) == (200, 3)
            in_time = await c.post("send", {"number": 3}, key, "Prefer: respond-async, wait=20")
            assert (in_time.status, json.loads(in_time.body)) == (200, 3)
            assert in_time.headers["content-location"] == f"{where}/result"
            wrong = await c.post("send", {"number": "seven"}, "Prefer: respond-async")
            assert (wrong.status, wrong.error["code"]) == (422, "invalid_argument")

    run(story())


def test_a_plain_endpoint_is_answered_as_if_nothing_was_preferred():
    async def story():
        async with customer() as c:
            answer = await c.post("plain", {"number": 3}, "Prefer: respond-async")
            assert (answer.status, json.loads(answer.body)) == (200, 3)
            assert "preference-applied" not in answer.headers

    run(story())


def test_a_client_that_leaves_ends_nothing_but_its_wait():
    async def story():
        async with customer() as c:
            key = "Idempotency-Key: mine"
            async with await c.gate.client() as client:
                client.send(request(f"{PATH}/approve", key, method="POST", body=b'{"what": "tea"}'))
                where = (await c.post("approve", {"what": "tea"}, key, "Prefer: respond-async")).headers["location"]
                await c.reached(where, "asking")
            await c.answer(where, False)
            answer = await c.post("approve", {"what": "tea"}, key)
            assert json.loads(answer.body) == "tea: no, shipped"

    run(story())


@pytest.mark.parametrize("text", ["", "-", "x-1", "٣-1", "9999999999-1", "3", "3-2-running"])
def test_a_position_is_read_from_any_text(text):
    position = CallPosition.read(text)
    assert position.after == (3 if text.startswith("3") else 0)
    assert CallPosition.read(str(position)) == position

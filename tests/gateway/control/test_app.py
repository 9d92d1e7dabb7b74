"""The control API over HTTP, in front of a real orchestrator whose launcher and environments are in memory."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from bema.core.access import Principal
from bema.deploy.launch.launcher import crashes
from bema.deploy.model.stack import Stack, StackFrame, ThreadStack
from bema.deploy.orchestrator.service import Orchestrator
from bema.gateway.control.app import Control
from bema.gateway.control.operations import OPERATIONS
from bema.gateway.server import Gateway
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.distributed import DistributedRuntime
from tests.deploy.platform import Platform
from tests.gateway.gate import OK, read_request
from tests.streams import unix_server

TOKEN = "secret-of-this-test"
CODE = "app = 1\n"


class Up(NamedTuple):
    api: httpx2.AsyncClient
    data: httpx2.AsyncClient
    platform: Platform
    discovery: MemoryDiscovery
    serving: DistributedRuntime
    folder: Path

    async def deploy(self, name: str = "hello", **more: Any) -> dict[str, Any]:
        answer = await self.api.post("/faas/python", json={"name": name, "code": CODE, **more})
        assert answer.status_code == 202, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def state(self, id: str, wanted: str) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while (info := (await self.api.get(f"/faas/python/{id}")).json())["state"] != wanted:
                await asyncio.sleep(0.01)
        found: dict[str, Any] = info
        return found


def client(url: str, **headers: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, headers=headers, verify=False)  # loading certificates takes most of a test


@asynccontextmanager
async def up(folder: Path) -> AsyncIterator[Up]:
    discovery, platform = MemoryDiscovery(), Platform(folder)
    (folder / "token").write_text(TOKEN + "\n")
    data, control = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    urls = [f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in (data, control)]
    settings = {"gateway_url": urls[0], "api_url": urls[1], "token_file": str(folder / "token"), "limits.start": 2.0}
    async with (
        platform.orchestrator() as orchestrator,
        DistributedRuntime(discovery) as serving,
        DistributedRuntime(discovery) as calling,
        client(urls[1], authorization=f"Bearer {TOKEN}") as api,
        client(urls[0]) as reached,
    ):
        component = serving.namespace("bema").component("orchestrator")
        for spec in Orchestrator.__bema_spec__().endpoints:  # type: ignore[attr-defined]
            await component.add(spec, getattr(orchestrator, spec.attribute or spec.name))
        await component.show()
        gateway = Gateway(calling, Orchestrator, settings)
        await gateway.listen(data, control)
        try:
            yield Up(api, reached, platform, discovery, serving, folder)
        finally:
            await gateway.drain(1)


def run(story) -> None:
    asyncio.run(asyncio.wait_for(story, 30))


def test_a_script_is_deployed_read_listed_and_removed(tmp_path):
    async def story():
        async with up(tmp_path) as u:
            answer = await u.api.post(
                "/faas/python", json={"name": "hello", "source": {"type": "inline", "code": CODE}}
            )
            made = answer.json()
            assert (answer.status_code, made["name"], made["version"]) == (202, "hello", "v1")
            assert made["state"] in ("building", "starting", "ready")
            assert made["url"] == f"{u.data.base_url}/gateway/{made['id']}".replace("//gateway", "/gateway")
            assert answer.headers["location"] == f"/faas/python/{made['id']}"
            ready = await u.state(made["id"], "ready")
            assert ready["instance"]["state"] == "serving"
            listed = (await u.api.get("/faas/python")).json()
            assert ([item["id"] for item in listed["items"]], listed["next"]) == ([made["id"]], None)
            assert listed["items"][0]["url"] == made["url"]
            assert (await u.api.delete(answer.headers["location"])).status_code == 204
            assert (await u.api.delete(answer.headers["location"])).status_code == 404
            assert (await u.api.get(answer.headers["location"])).json()["error"]["code"] == "not_found"

    run(story())


def test_nobody_gets_in_without_the_token(tmp_path):
    async def story():
        async with up(tmp_path) as u:
            for credential in ("", "Bearer x", f"Basic {TOKEN}", TOKEN):
                for row in OPERATIONS:
                    path = row.path.replace("{id}", str(uuid.uuid4()))
                    answer = await u.api.request(row.method, path, headers={"authorization": credential})
                    assert answer.status_code == (200 if row.open else 401), path
            assert answer.headers["x-request-id"]

    run(story())


@pytest.mark.parametrize("row", [row for row in OPERATIONS if not row.open], ids=lambda row: row.name)
def test_a_row_that_is_not_open_cannot_be_answered_without_a_principal(row):
    handler = getattr(Control, row.handler)
    taken = inspect.signature(handler, eval_str=True).parameters["principal"]
    assert (taken.annotation, taken.default) == (Principal, taken.empty)


def test_a_refusal_says_what_is_wrong_and_how_to_mend_it(tmp_path):
    async def story():
        async with up(tmp_path) as u:
            answer = await u.api.get("/faas/python", headers={"authorization": ""})
            error = answer.json()["error"]
            assert answer.headers["www-authenticate"] == "Bearer"
            assert error["code"] == "unauthenticated"
            assert "bema status" in error["fix"]
            assert error["trace_id"] == answer.headers["x-request-id"]

    run(story())


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "bad_request"),
        (b'{"name": "\xff", "code": ""}', 400, "bad_request"),
        (b'{"name": "x", "code": "\\ud800"}', 400, "bad_request"),
        (b"[]", 422, "invalid_argument"),
        (b'{"name": "x"}', 422, "invalid_argument"),
        (b'{"name": "x", "code": "", "source": {"type": "inline", "code": ""}}', 422, "invalid_argument"),
        (b'{"name": "x", "source": {"type": "gopher", "code": ""}}', 422, "invalid_argument"),
        (b'{"name": 1, "code": ""}', 422, "invalid_argument"),
        (b'{"name": "Not A Label", "code": ""}', 422, "bad_name"),
        (b'{"name": "x", "code": "def f(:"}', 422, "syntax_error"),
        (b'{"name": "x", "code": "", "env": {"A=B": "c"}}', 422, "invalid_argument"),
    ],
)
def test_what_cannot_be_deployed_is_refused_and_nothing_is_started(tmp_path, body, status, code):
    async def story():
        async with up(tmp_path) as u:
            answer = await u.api.post("/faas/python", content=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
            assert (await u.api.get("/faas/python")).json()["items"] == []

    run(story())


def test_a_name_in_use_is_409_with_its_id_and_a_repeated_key_is_the_same_answer(tmp_path):
    async def story():
        async with up(tmp_path) as u:
            body = {"name": "hello", "code": CODE}
            first = await u.api.post("/faas/python", json=body, headers={"idempotency-key": "k"})
            again = await u.api.post("/faas/python", json=body, headers={"idempotency-key": "k"})
            assert again.json()["id"] == first.json()["id"]
            taken = await u.api.post("/faas/python", json=body)
            assert taken.status_code == 409
            assert taken.json()["error"]["id"] == first.json()["id"]

    run(story())


def test_a_list_comes_in_pages(tmp_path):
    async def story():
        async with up(tmp_path) as u:
            made = [(await u.deploy(f"f{n}"))["id"] for n in range(3)]
            page = (await u.api.get("/faas/python", params={"count": 2})).json()
            rest = (await u.api.get("/faas/python", params={"count": 2, "after": page["next"]})).json()
            assert [item["id"] for item in page["items"] + rest["items"]] == made
            assert rest["next"] is None
            for count in ("0", "1001", "many", "-1"):
                assert (await u.api.get("/faas/python", params={"count": count})).status_code == 422

    run(story())


def test_logs_come_as_lines_and_follow(tmp_path):
    async def story():
        async with up(tmp_path) as u:
            made = await u.deploy()
            lines = [{"ts": n, "level": "info", "stream": "stdout", "event": f"line {n}"} for n in range(5)]
            place = u.folder / "logs" / made["id"]
            place.mkdir(parents=True, exist_ok=True)
            file = place / "0000000000001.ndjson"
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
            answer = await u.api.get(f"/faas/python/{made['id']}/logs", params={"tail": 2})
            assert answer.headers["content-type"].startswith("application/x-ndjson")
            assert [json.loads(line)["event"] for line in answer.text.splitlines()] == ["line 3", "line 4"]
            async with u.api.stream(
                "GET", f"/faas/python/{made['id']}/logs", params={"tail": 1, "follow": 1}
            ) as following:
                seen = following.aiter_lines()
                assert json.loads(await anext(seen))["event"] == "line 4"
                with file.open("a") as more:
                    more.write(json.dumps({**lines[0], "ts": 9, "event": "new"}) + "\n")
                assert json.loads(await asyncio.wait_for(anext(seen), 10))["event"] == "new"
            assert (await u.api.get(f"/faas/python/{uuid.uuid4()}/logs")).status_code == 404

    run(story())


def test_where_an_instance_stands_where_its_time_goes_and_what_is_outdated(tmp_path):
    async def story():
        async with up(tmp_path) as u:
            path = f"/faas/python/{(await u.deploy())['id']}"
            ready = await u.state(path.rpartition("/")[2], "ready")
            (instance,) = u.platform.launcher.instances
            frame = StackFrame(file="/v/main.py", line=42, function="ask", call="requests.get", own=True)
            u.platform.launcher.stacks[instance] = Stack(threads=(ThreadStack(name="MainThread", frames=(frame,)),))
            for which in ({}, {"version": "v1"}, {"instance": ready["instance"]["id"]}):
                told = (await u.api.get(f"{path}/stack", params=which)).json()
                assert told["threads"][0]["frames"][0]["call"] == "requests.get"
            assert (await u.api.get(f"{path}/profile?seconds=1")).json()["stacks"] == []
            for query, code in (("version=v2", 404), ("instance=zzz", 404)):
                assert (await u.api.get(f"{path}/stack?{query}")).status_code == code
                assert (await u.api.get(f"{path}/profile?{query}")).status_code == code
            for query in ("seconds=x", "seconds=-1", "idle=perhaps"):
                assert (await u.api.get(f"{path}/profile?{query}")).status_code == 422
            assert (await u.api.get(f"/faas/python/{uuid.uuid4()}/stack")).status_code == 404
            assert (await u.api.get(f"{path}/outdated")).json() == {"items": []}
            same = await u.api.post(f"{path}/upgrade")
            assert (same.status_code, same.json()["version"], same.json()["packages"]) == (202, "v1", [])
            u.platform.environments.newest = "not a lock"
            assert (await u.api.get(f"{path}/outdated")).json()["error"]["code"] == "build_failed"
            assert (await u.api.post(f"{path}/upgrade")).json()["error"]["code"] == "build_failed"

    run(story())


def test_a_failing_start_is_told_at_both_listeners(tmp_path):
    async def story():
        async with up(tmp_path) as u:
            u.platform.launcher.outcomes["hello"] = crashes(3, "boom")
            made = await u.deploy()
            told = await u.state(made["id"], "start_failed")
            assert told["error"]["code"] == "start_failed"
            answer = await u.data.get(f"/gateway/{made['id']}/")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "start_failed")
            assert "boom" in answer.text

    run(story())


def test_a_request_to_a_deployment_reaches_the_instance_that_discovery_shows(tmp_path):
    async def story():
        async def instance(reader, writer):
            while True:
                await read_request(reader)
                writer.write(OK)

        async with unix_server(instance, tmp_path / "i.sock"), up(tmp_path) as u:
            made = await u.deploy()
            ready = await u.state(made["id"], "ready")
            assert ready["instance"]["pid"] > 0
            show(u.discovery, made["id"], f"unix:{tmp_path}/i.sock")
            assert (await u.data.get(f"/gateway/{made['id']}/x")).text == "ok"
            metrics = (await u.api.get("/metrics")).text
            labels = f'{{deployment="{made["id"]}",status="2xx"}}'
            assert f"bema_gateway_requests_total{labels} 1\n" in metrics
            assert f'bema_gateway_answer_seconds_count{{deployment="{made["id"]}"}} 1\n' in metrics
            assert f'bema_starts_total{{deployment="{made["id"]}",kind="exec"}} 1\n' in metrics
            status = (await u.api.get("/status")).json()
            assert status["orchestrator"]["deployments"] == {"ready": 1}
            assert status["gateway"] == str(u.data.base_url).rstrip("/")

    run(story())


def test_without_the_orchestrator_everything_but_warm_traffic_is_503(tmp_path):
    async def story():
        async def instance(reader, writer):
            while True:
                await read_request(reader)
                writer.write(OK)

        async with unix_server(instance, tmp_path / "i.sock"), up(tmp_path) as u:
            made = await u.deploy()
            show(u.discovery, made["id"], f"unix:{tmp_path}/i.sock")
            await u.serving.close()
            answers = await asyncio.gather(
                u.api.get("/faas/python"), u.api.get("/readyz"), u.data.get(f"/gateway/{uuid.uuid4()}/")
            )
            assert [(a.status_code, a.json()["error"]["code"]) for a in answers] == [(503, "unavailable")] * 3
            assert (await u.data.get(f"/gateway/{made['id']}/")).text == "ok"
            assert (await u.api.get("/healthz")).status_code == 200
            assert (await u.api.get("/status")).json()["orchestrator"] is None

    run(story())


def test_the_documents_are_made_from_the_table(tmp_path):
    async def story():
        async with up(tmp_path) as u:
            document = (await u.api.get("/openapi.json")).json()
            assert document["openapi"] == "3.1.0"
            described = {(method.upper(), path) for path, row in document["paths"].items() for method in row}
            assert described == {(row.method, row.path) for row in OPERATIONS}
            assert references(document) <= {
                f"#/components/schemas/{name}" for name in document["components"]["schemas"]
            }
            page = (await u.api.get("/docs")).text
            assert all(row.path in page for row in OPERATIONS)
            assert "http://" not in page
            assert "https://" not in page

    run(story())


def test_paths_and_methods_that_are_not_there(tmp_path):
    async def story():
        async with up(tmp_path) as u:
            missing = await u.api.get("/nothing")
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
            wrong = await u.api.put("/faas/python", content=b"")
            assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
            assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
            one = await u.api.post(f"/faas/python/{'0' * 8}-0000-4000-8000-{'0' * 12}", content=b"")
            assert (one.status_code, set(one.headers["allow"].split(", "))) == (
                405,
                {"GET", "HEAD", "DELETE", "PUT", "PATCH"},
            )
            assert (await u.api.head("/faas/python")).status_code == 200
            assert (await u.api.get("/faas/python/not-an-id")).status_code == 404


def test_every_path_says_all_that_it_takes_where_it_refuses_a_method(tmp_path):
    async def story():
        async with up(tmp_path) as u:
            for path in {row.path for row in OPERATIONS}:
                taken = {row.method for row in OPERATIONS if row.path == path}
                taken |= {"HEAD"} if "GET" in taken else set()
                other = next(each for each in ("PATCH", "PUT", "POST", "DELETE", "GET") if each not in taken)
                refused = await u.api.request(other, path.replace("{id}", "x"), content=b"")
                assert (refused.status_code, set(refused.headers["allow"].split(", "))) == (405, taken), path
                assert all(method in refused.json()["error"]["message"] for method in taken)

    run(story())


def show(discovery: MemoryDiscovery, deployment: str, address: str) -> None:
    from bema.core.instance import Instance
    from bema.core.naming import new_instance_id

    discovery.put(
        Instance(
            id=new_instance_id(), namespace="bema", component="x", deployment=deployment, addresses={"http": (address,)}
        )
    )


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()

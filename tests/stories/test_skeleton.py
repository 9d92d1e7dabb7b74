"""The main job on real input: three scripts, deployed, and reached by clients that we did not write."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import Any

import httpx2
import mcp
import pytest

from tests.stories.harness import EXAMPLES, Platform, until
from tests.tools import tool

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deployed(running: Platform) -> dict[str, dict[str, Any]]:
    """The three examples, deployed by the command a user types."""
    for name in ("worker", "api", "tools"):
        done = running.bema("deploy", str(EXAMPLES / f"{name}.py"))
        assert done.returncode == 0, done.stderr + done.stdout
    return {item["name"]: item for item in running.json("ls")["deployments"]}


def test_all_three_are_listed_ready_with_an_absolute_url(running: Platform, deployed: dict[str, Any]) -> None:
    assert {name: item["state"] for name, item in deployed.items()} == {
        "worker": "ready",
        "api": "ready",
        "tools": "ready",
    }
    for item in deployed.values():
        assert item["url"] == f"{running.gateway}/gateway/{item['id']}"


def test_an_mcp_client_finds_and_calls_the_tools(deployed: dict[str, Any]) -> None:
    async def story() -> None:
        async with mcp.Client(deployed["tools"]["url"] + "/mcp") as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert len(tools) == 2
            result = await client.call_tool("add", {"a": 2, "b": 40})
            assert result.content[0].text == "42.0"  # type: ignore[union-attr]

    asyncio.run(story())


def test_httpx_reads_json_and_follows_a_stream(deployed: dict[str, Any]) -> None:
    with httpx2.Client(base_url=deployed["api"]["url"], timeout=10, trust_env=False) as client:
        assert client.get("greet/Ada").json() == {"greeting": "hello Ada"}
        with client.stream("GET", "count", params={"to": 3, "pause": 0}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = [line for line in answer.iter_lines() if line]
    assert events == ["data: 1", "data: 2", "data: 3"]


def test_the_page_that_fastapi_makes_works_below_the_prefix(deployed: dict[str, Any]) -> None:
    with httpx2.Client(timeout=10, trust_env=False) as client:
        page = client.get(deployed["api"]["url"] + "/docs").text
        path = page.partition("url: '")[2].partition("'")[0]
        schema = client.get(httpx2.URL(deployed["api"]["url"]).join(path)).json()
    assert "/greet/{name}" in schema["paths"]


def test_curl_streams_the_tokens_of_a_class(deployed: dict[str, Any]) -> None:
    curl = tool("curl")
    url = deployed["worker"]["url"] + "/generate"
    done = subprocess.run(
        [curl, "-sN", "--max-time", "10", "-H", "content-type: application/json", "-d", '{"text": "a b c"}', url],
        capture_output=True,
        text=True,
        check=True,
    )
    tokens = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("data: ")]
    assert tokens[:3] == ["token1", "token2", "token3"]


def test_our_typed_client_meets_the_deployed_class(running: Platform, deployed: dict[str, Any]) -> None:
    program = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import bema
from worker import ChatRequest, Worker

async def main():
    async with bema.connect() as runtime:
        async for token in runtime.client(Worker).generate(ChatRequest(text="x y z")):
            print(token)

asyncio.run(main())
"""
    from tests.stories.harness import command

    done = subprocess.run(
        [command()[0], "-c", program, str(EXAMPLES)],
        env=running.env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["token1", "token2", "token3"]


SHOWS_HEADERS = """
import json

async def app(scope, receive, send):
    if scope["type"] == "http":
        shown = {name.decode(): value.decode() for name, value in scope["headers"]}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(shown).encode()})
"""


def test_the_control_listener_wants_the_token_and_the_data_listener_forwards_the_caller_s(running: Platform) -> None:
    made = running.deploy("headers", SHOWS_HEADERS)
    with httpx2.Client(timeout=10, trust_env=False) as client:
        assert client.get(f"{running.api}/faas/python").status_code == 401
        assert client.get(f"{running.api}/faas/python", headers={"authorization": "Bearer nope"}).status_code == 401
        shown = client.get(made["url"], headers={"authorization": "Bearer mine"}).json()
    assert shown["authorization"] == "Bearer mine"
    assert shown["x-forwarded-prefix"] == f"/gateway/{made['id']}"
    assert running.token not in str(shown)


def test_the_logs_hold_what_a_script_prints(running: Platform) -> None:
    made = running.deploy(
        "talker",
        "print('first words')\nimport http.server, os\n"
        "http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])),"
        " http.server.SimpleHTTPRequestHandler).serve_forever()\n",
    )
    assert made["kind"] == "main"
    with httpx2.Client(timeout=10, trust_env=False) as client:
        assert client.get(made["url"]).status_code == 200
    assert "first words" in running.bema("logs", "talker").stdout
    assert running.bema("rm", "talker").returncode == 0
    with running.http() as api:
        assert api.get(f"/faas/python/{made['id']}").status_code == 404


def test_a_name_in_use_is_refused_with_its_id(running: Platform, deployed: dict[str, Any]) -> None:
    with running.http() as api:
        answer = api.post(
            "/faas/python", json={"name": "api", "source": {"type": "inline", "code": "x = 1"}, "env": {}}
        )
    assert answer.status_code == 409
    assert deployed["api"]["id"] in answer.text


def test_reading_deleting_and_reading_again(running: Platform, script: Any) -> None:
    made = running.deploy("passing", script("hello"))
    with running.http() as api:
        assert [i["name"] for i in api.get("/faas/python").json()["items"] if i["id"] == made["id"]] == ["passing"]
        assert api.delete(f"/faas/python/{made['id']}").status_code == 204
        assert api.get(f"/faas/python/{made['id']}").status_code == 404
        assert api.delete(f"/faas/python/{made['id']}").status_code == 404
    with httpx2.Client(timeout=10, trust_env=False) as client:
        assert client.get(made["url"]).status_code == 404


FAILING = """
import logging
from bema import endpoint, service

@service(name="failing", namespace="demo")
class Failing:
    @endpoint()
    async def divide(self) -> int:
        logging.getLogger("app").info("about to divide")
        return 1 // 0
"""


def test_what_an_endpoint_raised_is_in_its_log_under_the_trace_of_the_answer(running: Platform) -> None:
    made = running.deploy("failing", FAILING)
    answer = httpx2.post(made["url"] + "/divide", json={}, trust_env=False, timeout=10)
    trace = answer.json()["error"]["trace_id"]
    assert answer.status_code == 500

    def logged() -> list[str] | None:
        lines = running.bema("logs", "failing").stdout.splitlines()
        return lines if any("ZeroDivisionError" in line for line in lines) else None

    lines = until("the traceback is in the log", logged)
    assert any("INFO" in line and "about to divide" in line and trace in line for line in lines)
    assert any("ERROR" in line and "demo.failing.divide failed" in line for line in lines)
    assert any("return 1 // 0" in line for line in lines)
    assert trace in "\n".join(lines)
    assert running.bema("rm", "failing").returncode == 0

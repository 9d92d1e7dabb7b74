"""`register_engine_route`: functions of a runtime, asked for at its status port."""

import asyncio
import contextvars
import json
import os
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bema import BadDeclaration
from bema.compat.dynamo.runtime import DistributedRuntime
from bema.core.errors import BemaError, Conflict
from bema.sdk.status import server
from tests.sdk.asking import answer, free_port, get, post, samples

WHERE = contextvars.ContextVar("where", default="nowhere")


@pytest.fixture(autouse=True)
def asked_for(monkeypatch):
    monkeypatch.setenv("BEMA_STATUS_PORT", "0")


def told(story, **limits):
    """Run `story(runtime, port)` with a runtime that has a status port."""

    async def run():
        async with DistributedRuntime(discovery_backend="mem") as runtime:
            runtime.host.limits = runtime.limits.but(**limits)
            assert runtime.system_status_server_url is not None
            await story(runtime, int(runtime.system_status_server_url.rpartition(":")[2]))
        assert not server._by_loop

    asyncio.run(asyncio.wait_for(run(), 30))


async def asked(port: int, name: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Ask once more after a refusal for a loop that stands, as its fix says: on a loaded machine one does."""
    while True:
        status, found = await asyncio.to_thread(post, port, f"/engine/{name}", {} if body is None else body, **headers)
        if (status, found.get("error", {}).get("code")) != (503, "unavailable"):
            return status, found


def test_a_function_is_asked_in_its_own_loop_and_context():
    async def where(body):
        return {"body": body, "here": asyncio.get_running_loop() is loops[0], "where": WHERE.get()}

    async def story(runtime, port):
        loops.append(asyncio.get_running_loop())
        WHERE.set("registered")
        runtime.register_engine_route("where", where)
        WHERE.set("later")
        runtime.register_engine_route("cache/clear_all.now-1", where)
        assert await asked(port, "where", {"a": [1]}) == (
            200,
            {"body": {"a": [1]}, "here": True, "where": "registered"},
        )
        assert (await asked(port, "cache/clear_all.now-1", b""))[1] == {"body": {}, "here": True, "where": "later"}
        assert (await asked(port, "where", {}, **{"content-type": "Application/JSON; charset=utf-8"}))[0] == 200

    loops: list[asyncio.AbstractEventLoop] = []
    told(story)


@pytest.mark.parametrize(
    ("body", "headers", "code", "says"),
    [
        (b"[1]", {}, "bad_request", "not a JSON object"),
        (b"{", {}, "bad_request", "not a JSON object"),
        (b'{"a": "\xff"}', {}, "bad_request", "not a JSON object"),
        (b"[" * 100_000, {}, "bad_request", "not a JSON object"),
        ({}, {"content-type": "text/plain"}, "bad_request", "content-type"),
        ({}, {"origin": "http://elsewhere.example"}, "forbidden", "browser"),
        ({"a": "x" * 1000}, {}, "too_large", "larger than 1000 bytes"),
    ],
    ids=["list", "torn", "not-utf-8", "deep", "content-type", "browser", "large"],
)
def test_what_cannot_be_asked_is_refused_and_runs_nothing(body, headers, code, says):
    async def function(body):
        calls.append(body)
        return {}

    async def story(runtime, port):
        runtime.register_engine_route("function", function)
        status, found = await asked(port, "function", body, **headers)
        assert (found["error"]["code"], calls) == (code, [])
        assert status == {"bad_request": 400, "forbidden": 403, "too_large": 413}[code]
        assert says in found["error"]["message"]

    calls: list[Any] = []
    told(story, http_body=200_000 if isinstance(body, bytes) else 1000)


def test_a_body_without_a_length_is_bounded_too():
    async def function(body):
        return {}

    async def story(runtime, port):
        runtime.register_engine_route("function", function)
        parts = iter([b"{" + b" " * 600, b" " * 600, b"}"])
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/engine/function", parts, {"content-type": "application/json"}, method="POST"
        )
        code, text = await asyncio.to_thread(answer, request)
        assert (code, json.loads(text)["error"]["code"]) == (413, "too_large")

    told(story, http_body=1000)


def test_only_post_and_only_what_is_there():
    async def function(body):
        return {}

    async def story(runtime, port):
        runtime.register_engine_route("there", function)
        code, text = await asyncio.to_thread(get, port, "/engine/there")
        assert (code, json.loads(text)["error"]["code"]) == (405, "method_not_allowed")
        for path in ("/engine/elsewhere", "/engine/", "/engine/there/"):
            code, text = await asyncio.to_thread(get, port, path)
            assert code == 404 and "POST /engine/there" in json.loads(text)["error"]["fix"]

    told(story)


def test_a_function_that_fails_is_told_of_without_its_traceback(caplog):
    async def failing(body):
        raise {"ours": BemaError("no room", code="overloaded", shelf=3), "any": KeyError("shelf")}[body["how"]]

    async def strange(body):
        return {"list": [1], "object": {"a": object()}}[body["how"]]

    async def story(runtime, port):
        runtime.register_engine_route("failing", failing)
        runtime.register_engine_route("strange", strange)
        code, found = await asked(port, "failing", {"how": "ours"})
        assert (code, found["error"]["code"], found["error"]["shelf"]) == (500, "overloaded", 3)
        for name, how, says in (
            ("failing", "any", "KeyError: 'shelf'"),
            ("strange", "list", "TypeError: /engine/strange answered list where a dict is wanted"),
            ("strange", "object", "TypeError: Encoding objects of type object is unsupported"),
        ):
            code, found = await asked(port, name, {"how": how})
            assert (code, found["error"]["code"], found["error"]["message"]) == (500, "remote_error", says)
            assert "Traceback" not in json.dumps(found)
        assert "Traceback" in caplog.text and "/engine/failing failed" in caplog.text

    told(story)


def test_a_function_that_cannot_begin_is_refused_and_never_runs():
    async def function(body):
        calls.append(body["n"])
        return {}

    async def story(runtime, port):
        runtime.register_engine_route("function", function)
        with ThreadPoolExecutor(1) as asking:
            # the loop waits, as a handler that blocks does, until the answer is there
            code, found = asking.submit(post, port, "/engine/function", {"n": 1}).result(20)
        assert (code, found["error"]["code"]) == (503, "unavailable")
        assert "stood still" in found["error"]["message"]
        async with asyncio.timeout(20):
            while (code := (await asked(port, "function", {"n": 2}))[0]) == 503:
                pass  # other processes may keep this loop waiting as well
        assert code == 200
        assert calls == [2]

    calls: list[int] = []
    told(story, stalled=0.3)


def test_what_has_begun_is_waited_for_also_when_it_blocks_the_loop_itself():
    async def blocks(body):
        while not (found := json.loads(get(body["port"], "/healthz")[1]))["stalled"]:
            pass
        return {"stalled": found["stalled"]}

    async def story(runtime, port):
        runtime.register_engine_route("blocks", blocks)
        assert await asked(port, "blocks", {"port": port}) == (200, {"stalled": True})

    told(story, stalled=0.2)


def test_the_end_cuts_what_runs_and_says_that_its_outcome_is_unknown():
    async def waits(body):
        began.set()
        await asyncio.Event().wait()
        return {}

    async def story(runtime, port):
        runtime.register_engine_route("waits", waits)
        asking = asyncio.ensure_future(asked(port, "waits"))
        await began.wait()
        await runtime.close()
        code, found = await asking
        assert (code, found["error"]["code"]) == (503, "disconnected")

    began = asyncio.Event()
    told(story)


@pytest.mark.parametrize("name", ["", "/", "a//b", "../a", "a b", "a?b", "ä", "a/", "x" * 300])
def test_a_name_that_is_no_path_is_refused_when_it_is_registered(name):
    async def story(runtime, port):
        with pytest.raises(BadDeclaration, match="is not parts of letters"):
            runtime.register_engine_route(name, story)

    told(story)


def test_a_name_is_registered_once_and_goes_with_its_runtime():
    async def function(body):
        return {"by": "one"}

    async def story(runtime, port):
        with pytest.raises(BadDeclaration, match="needs an async function, not 3"):
            runtime.register_engine_route("function", 3)
        runtime.register_engine_route("function", function)
        async with DistributedRuntime(discovery_backend="mem") as other:
            assert other.system_status_server_url == runtime.system_status_server_url
            with pytest.raises(Conflict, match="/engine/function is there already"):
                other.register_engine_route("function", function)
            other.register_engine_route("other", function)
            assert (await asked(port, "other"))[0] == 200
        assert (await asked(port, "other"))[0] == 404
        assert (await asked(port, "function"))[0] == 200

    told(story)


def test_without_a_status_port_it_is_said_that_nobody_can_ask(monkeypatch, caplog):
    async def function(body):
        return {}

    async def story():
        async with DistributedRuntime(discovery_backend="mem") as runtime:
            assert runtime.system_status_server_url is None
            runtime.register_engine_route("sleep", function)
            with pytest.raises(Conflict):
                runtime.register_engine_route("sleep", function)

    monkeypatch.delenv("BEMA_STATUS_PORT")
    asyncio.run(story())
    assert caplog.messages == ["nobody can reach /engine/sleep: set BEMA_STATUS_PORT to have a status port"]


WORKER = """
import asyncio
from bema.compat.dynamo.runtime import DistributedRuntime, dynamo_worker

async def generate(request):
    yield "token"

async def sleep(body):
    return {"asleep": body["level"]}

@dynamo_worker(register_shutdown=True)
async def worker(runtime: DistributedRuntime):
    runtime.register_engine_route("sleep", sleep)
    endpoint = runtime.endpoint("demo.routes.generate")
    print(runtime.system_status_server_url, flush=True)
    await asyncio.to_thread(input)
    await endpoint.serve_endpoint(generate, metrics_labels=[("model", "small")])
    print("ended", flush=True)

asyncio.run(worker())
"""


def test_a_worker_without_a_class_has_its_status_and_its_functions(tmp_path):
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env={**os.environ, "BEMA_STATE_DIR": str(tmp_path), "BEMA_STATUS_PORT": str(port)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == f"http://127.0.0.1:{port}\n"
        assert get(port, "/readyz")[0] == 503, "it serves nothing yet"
        process.stdin.write("\n")
        process.stdin.flush()
        while get(port, "/readyz")[0] == 503:
            assert process.poll() is None
        where = 'namespace="demo",component="routes",endpoint="generate",model="small",outcome="ok"'
        assert samples(get(port, "/metrics")[1])[f"bema_requests_total{{{where}}}"] == 0
        assert post(port, "/engine/sleep", {"level": 1}) == (200, {"asleep": 1})
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[0] == "ended\n"
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()

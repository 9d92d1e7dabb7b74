"""Each kind of script, run by the real runner, answers on the socket that was passed."""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import httpx2
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

EXAMPLES = Path(__file__).parents[2] / "examples"

ASGI = """
import os
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": os.environ.get("GREETING", "none").encode()})
"""


def test_a_fastapi_script_answers_json_and_streams(launch):
    running = launch((EXAMPLES / "api.py").read_text()).serving()
    assert running.get("/greet/world").json() == {"greeting": "hello world"}
    with running.http() as http, http.stream("GET", "/count?to=3&pause=0") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert [line for line in answer.iter_lines() if line] == ["data: 1", "data: 2", "data: 3"]
    assert running.stop() == 0


def test_a_flask_script_answers_and_knows_its_prefix(launch):
    running = launch(
        "from flask import Flask, url_for\n"
        "app = Flask(__name__)\n"
        "@app.get('/here')\n"
        "def here():\n"
        "    return url_for('here')\n",
    ).serving()
    assert running.get("/here").text == "/here"
    assert running.get("/here", headers={"x-forwarded-prefix": "/gateway/7"}).text == "/gateway/7/here"
    assert running.stop() == 0


def test_the_docs_of_an_app_hold_behind_the_prefix(launch):
    running = launch((EXAMPLES / "api.py").read_text()).serving()
    docs = running.get("/docs", headers={"x-forwarded-prefix": "/gateway/7"}).text
    assert "'/gateway/7/openapi.json'" in docs
    assert running.get("/openapi.json", headers={"x-forwarded-prefix": "/gateway/7"}).json()["servers"] == [
        {"url": "/gateway/7"}
    ]


def test_an_mcp_script_is_spoken_to_by_the_mcp_client(launch):
    running = launch((EXAMPLES / "tools.py").read_text(), "mcp", "mcp")
    assert running.start().hear()["endpoints"] == [{"path": "/mcp", "methods": ["GET", "POST", "DELETE"]}]

    async def story():
        transport = httpx2.AsyncHTTPTransport(uds=running.path)
        async with (
            httpx2.AsyncClient(transport=transport, trust_env=False) as http,
            streamable_http_client("http://127.0.0.1:8700/mcp", http_client=http) as (read, write, *_),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = await session.list_tools()
            answer = await session.call_tool("add", {"a": 2, "b": 40})
            return sorted(tool.name for tool in tools.tools), answer.content[0].model_dump()["text"]

    assert asyncio.run(story()) == (["add", "days_between"], "42.0")
    assert running.stop() == 0


SERVICE = """
from collections.abc import AsyncIterator
from bema import endpoint, service

@service(name="counter", namespace="demo")
class Counter:
    @endpoint()
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number
"""


def test_a_service_class_is_announced_with_its_operations_and_called(launch):
    running = launch(SERVICE, "service", "Counter", auth_token="secret")
    said = running.start().hear()
    assert (said["namespace"], said["name"], said["kind"]) == ("demo", "counter", "service")
    assert said["operations"][0]["name"] == "count"
    assert said["addresses"] == {"rpc": [f"unix:{running.path}"]}
    assert running.stop() == 0


def test_a_program_finds_what_a_program_finds(launch):
    running = launch(
        "import json, os, sys\n"
        "import beside\n"
        "print(json.dumps([__name__, __file__, sys.argv, sys.path[0], sys.path[-1], os.environ['PORT'], os.environ['X'],"
        " 'BEMA_CHANNEL' in os.environ, sys.modules['__main__'].__file__, beside.here]))\n",
        "main",
        "",
        listen="127.0.0.1:4107",
        env={"X": "given"},
        platform="/the/platform/layer",
    )
    (running.script.parent / "beside.py").write_text("here = True")
    script = str(running.script)
    code, out, err = running.start().ended()
    assert (code, err) == (0, "")
    assert json.loads(out) == [
        "__main__",
        script,
        [script],
        str(running.script.parent),
        "/the/platform/layer",
        "4107",
        "given",
        False,
        script,
        True,
    ]


def test_site_folders_come_before_the_platform_layer(launch, tmp_path):
    for folder in ("site", "platform"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "which.py").write_text(f"name = {folder!r}")
    (tmp_path / "platform" / "only.py").write_text("name = 'platform'")
    running = launch(
        "import only, which; print(which.name, only.name)",
        "main",
        "",
        site=[str(tmp_path / "site")],
        platform=str(tmp_path / "platform"),
    )
    assert running.start().ended() == (0, "site platform\n", "")


def test_what_a_program_starts_inherits_neither_channel_nor_listener_nor_lease(launch):
    running = launch(
        "import subprocess; subprocess.run(['ls', '/proc/self/fd'], close_fds=False)", "main", "", listen="127.0.0.1:1"
    )
    assert running.start().ended()[1].split() == ["0", "1", "2", "3"]  # 3 is the folder that ls reads


@pytest.mark.parametrize("kind", ["main", "app"])
def test_a_failing_script_shows_its_own_frames_only(launch, kind):
    running = launch("def inner():\n    raise LookupError('no table')\ninner()\n", kind)
    code, _, err = running.start().ended()
    assert code == 1
    assert err.splitlines()[0] == "Traceback (most recent call last):"
    assert err.splitlines()[-1] == "LookupError: no table"
    assert err.count('File "') == 2
    assert "bema" not in err


def test_a_program_ends_with_the_code_it_chose(launch):
    assert launch("raise SystemExit(7)", "main", "").start().ended()[0] == 7


def test_an_object_of_no_known_kind_is_named(launch):
    code, _, err = launch("class Thing: ...\nthing = Thing()\n", "app", "thing").start().ended()
    assert code == 1
    assert "'thing' of the script is a given.Thing: neither an ASGI app, a WSGI app" in err
    assert "Traceback" not in err


def test_an_entry_that_is_not_there_is_named(launch):
    code, _, err = launch("", "app", "application").start().ended()
    assert (code, err.splitlines()[0]) == (1, "entry_not_found: the script has no 'application'")


def test_an_app_whose_lifespan_fails_never_announces(launch):
    code, _, err = (
        launch(
            "from contextlib import asynccontextmanager\n"
            "from starlette.applications import Starlette\n"
            "@asynccontextmanager\n"
            "async def life(app):\n"
            "    raise ConnectionError('no database')\n"
            "    yield\n"
            "app = Starlette(lifespan=life)\n"
        )
        .start()
        .ended()
    )
    assert code != 0
    assert "no database" in err


STREAM = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(int(scope["query_string"])):
        await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % number, "more_body": True})
        await asyncio.sleep(0.05)
    await send({"type": "http.response.body", "body": b""})
"""


@pytest.mark.parametrize("how", ["stop", "signal", "channel"])
def test_a_running_request_is_finished_before_the_end(launch, how):
    running = launch(STREAM, drain_ms=5000).serving()
    with running.http() as http, http.stream("GET", "/?6") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: 0"
        if how == "stop":
            running.say({"op": "shutdown", "deadline_ms": 5000})
        elif how == "signal":
            running.process.send_signal(signal.SIGTERM)
        else:
            running.channel.shutdown(socket.SHUT_WR)
        assert [line for line in lines if line][-1] == "data: 5"
    assert running.ended()[0] == 0


def test_a_stream_without_end_is_cut_at_the_deadline(launch):
    running = launch(STREAM).serving()
    with running.http() as http, http.stream("GET", "/?100000") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: 0"
        asked = time.monotonic()
        running.say({"op": "shutdown", "deadline_ms": 300})
        with pytest.raises(httpx2.RemoteProtocolError):
            list(lines)
    assert running.ended()[0] == 1
    assert time.monotonic() - asked < 3


def test_started_by_hand_it_says_so(launch):
    running = launch("")
    running.channel.shutdown(socket.SHUT_WR)
    code, _, err = running.ended()
    assert (code, err) == (64, "bema runner: the module channel ended before Init\n")


def test_a_stop_that_comes_with_init_is_not_lost(launch):
    running = launch(ASGI)
    running.say(running.init, {"op": "shutdown", "deadline_ms": 0})
    assert running.ended()[0] == 0


def test_requests_made_before_the_start_wait_in_the_listener(launch):
    running = launch(ASGI, env={"GREETING": "waited for"})
    answers = []
    asking = threading.Thread(target=lambda: answers.append(running.get("/").text))
    asking.start()
    running.serving()
    asking.join(20)
    assert answers == ["waited for"]


def test_the_lease_lives_as_long_as_the_process(launch):
    running = launch(ASGI).serving()
    assert any(
        os.path.samestat(os.stat(f"/proc/{running.process.pid}/fd/{running.lease}"), os.fstat(running.lease))
        for _ in "1"
    )

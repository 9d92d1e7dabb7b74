"""What is said of a served app tells whether it takes calls: its loop, and the threads that its calls run in."""

import contextlib
import threading
import time
from pathlib import Path

import httpx2
import pytest

STUCK = {"limits.stalled": 0.4, "limits.health": 0.1}

WSGI = """
import os, time

def hold(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not os.path.exists(os.environ["GO"]):
        time.sleep(0.02)

def app(environ, start_response):
    hold(60)
    start_response("200 OK", [])
    return [b"done"]
"""

THREADS = """
import os, time
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

def hold(request):
    while not os.path.exists(os.environ["GO"]):
        time.sleep(0.02)
    return PlainTextResponse("done")

app = Starlette(routes=[Route("/hold", hold)])
"""

LOOP = """
import time
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    time.sleep(float(scope["query_string"]))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})
"""


def reporting(launch, code, go="/nowhere"):
    return launch(code, features=["status"], settings=STUCK, env={"GO": str(go)}).serving()


@contextlib.contextmanager
def asking(running, path, times):
    """So many calls at once, as clients that wait for their answers."""

    def ask():
        with contextlib.suppress(httpx2.HTTPError):
            running.get(path)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(times)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(20)


def marks(said):
    return said["ready"], said["stalled"]


@pytest.mark.parametrize("code", [WSGI, THREADS], ids=["wsgi", "asgi"])
def test_an_app_whose_every_thread_is_held_is_not_ready_until_one_is_free(launch, tmp_path, code):
    running = reporting(launch, code, tmp_path / "go")
    with asking(running, "/hold", 45):
        assert marks(running.hear()) == (False, False)
        Path(running.init["env"]["GO"]).touch()
    assert marks(running.hear()) == (True, False)
    assert running.stop() == 0


def test_a_full_pool_whose_calls_come_and_go_stays_ready(launch):
    running = reporting(launch, WSGI.replace("hold(60)", "hold(0.05)"))
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        with asking(running, "/hold", 60):
            pass
    running.channel.settimeout(0.2)
    with pytest.raises(TimeoutError):
        running.lines.readline()
    running.channel.settimeout(20)


def test_an_app_whose_loop_stands_still_is_stalled_until_it_turns(launch):
    running = reporting(launch, LOOP)
    with asking(running, "/?1.5", 1):
        assert marks(running.hear()) == (True, True)
    assert marks(running.hear()) == (True, False)
    assert running.stop() == 0


def test_a_launcher_that_takes_no_reports_is_told_none(launch):
    running = launch(LOOP, settings=STUCK).serving()
    assert running.get("/?1.0").text == "done"
    assert running.stop() == 0
    assert running.lines.read() == ""


def test_an_app_of_many_routes_is_announced_with_the_first_of_them(launch):
    running = launch(
        "from starlette.applications import Starlette\n"
        "from starlette.routing import Route\n"
        "async def hello(request): ...\n"
        "app = Starlette(routes=[Route(f'/{\"long\" * 20}/{n}', hello) for n in range(12000)])\n"
    )
    said = running.start().hear()
    assert said["endpoints"][0]["path"].endswith("/0")
    assert 100 <= len(said["endpoints"]) < 12000
    running.say({"op": "shutdown", "deadline_ms": 500})
    code, _, err = running.ended()
    assert (code, "the app has 12000 routes" in err) == (0, True)


def test_an_upgrade_that_nothing_installed_can_answer_says_what_is_missing(launch):
    running = launch(
        "import sys\n"
        "sys.modules['websockets'] = sys.modules['wsproto'] = None\n"
        "from starlette.applications import Starlette\n"
        "from starlette.routing import WebSocketRoute\n"
        "async def echo(socket): ...\n"
        "app = Starlette(routes=[WebSocketRoute('/socket', echo)])\n"
    ).serving()
    upgrade = {
        "connection": "upgrade",
        "upgrade": "WebSocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "x" * 24,
    }
    answer = running.get("/socket", headers=upgrade)
    assert answer.status_code == 501
    assert "add `websockets` to the script's dependencies" in answer.text
    assert running.get("/socket").status_code == 404
    assert running.stop() == 0

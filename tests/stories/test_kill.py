"""What happens when something is killed: the promises of docs/failure.md, each kept by one story."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from bema.core.paths import socket_dir
from bema.deploy.keeper.processes import look
from tests.stories.harness import Platform, alive, command, processes_of, until

pytestmark = pytest.mark.slow

SLOW = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"].endswith("/slow"):
        await asyncio.sleep(60)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""


def client() -> httpx2.Client:
    return httpx2.Client(timeout=10, trust_env=False)


def test_a_killed_instance_costs_its_caller_a_502_and_nobody_else_anything(platform: Platform) -> None:
    made = platform.up().deploy("slow", SLOW)
    with client() as http, client() as other:
        pid = int(http.get(made["url"]).text)
        answers: list[tuple[httpx2.Response, float]] = []

        def hang() -> None:
            answer = other.get(made["url"] + "/slow")
            answers.append((answer, time.monotonic()))

        caller = threading.Thread(target=hang)
        caller.start()
        until("the slow request is in flight", lambda: _in_flight(platform, made["id"]))
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        caller.join(10)
        answer, at = answers[0]
        assert answer.status_code == 502
        assert answer.headers["x-request-id"]
        assert at - killed < 1.0
        assert int(http.get(made["url"]).text) != pid


def _in_flight(platform: Platform, deployment: str) -> bool:
    with platform.http() as api:
        return any(
            "in_flight" in line and deployment in line and not line.endswith(" 0")
            for line in api.get("/metrics").text.splitlines()
        )


def test_warm_requests_go_on_without_the_orchestrator_which_is_back_within_a_second(
    platform: Platform, script: Callable[[str], str]
) -> None:
    made = platform.up().deploy("warm", script("still here"))
    with client() as http:
        before = http.get(made["url"]).text
        first = platform.system("orchestrator")
        os.kill(first, signal.SIGKILL)
        killed = time.monotonic()
        with platform.http() as api:
            assert http.get(made["url"]).text == before
            until("the orchestrator answers again", lambda: _ok(api, f"/faas/python/{made['id']}"))
            assert time.monotonic() - killed < 1.0
            assert api.get(f"/faas/python/{made['id']}").json()["state"] == "ready"
            while time.monotonic() - killed < 0.5:
                assert http.get(made["url"]).text == before
        assert platform.system("orchestrator") != first
        assert http.get(made["url"]).text == before, "the instance kept its pid"


def _ok(http: httpx2.Client, path: str) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return http.get(path).status_code == 200
    return False


def test_a_killed_gateway_is_back_within_a_second_and_new_connections_wait_for_it(
    platform: Platform, script: Callable[[str], str]
) -> None:
    made = platform.up().deploy("kept", script("kept"))
    with client() as http:
        before = http.get(made["url"]).text
    os.kill(platform.system("gateway"), signal.SIGKILL)
    killed = time.monotonic()
    with client() as http:
        assert http.get(made["url"]).text == before, "the instance kept its pid"
    assert time.monotonic() - killed < 1.0


MORTAL = """
import os

async def app(scope, receive, send):
    if scope["type"] == "http":
        os._exit(1)
"""


def test_an_instance_that_dies_again_and_again_is_a_crash_loop(platform: Platform) -> None:
    platform.env["BEMA_LIMITS__RESTART_WINDOW"] = "60"  # five starts may take a busy machine more than the usual ten
    made = platform.up().deploy("mortal", MORTAL)
    answers: list[httpx2.Response] = []
    with client() as http:

        def looping() -> bool:
            answers.append(http.get(made["url"]))
            return answers[-1].status_code != 502

        until("it is a crash loop", looping, 60)
    assert answers[-1].status_code == 503
    assert answers[-1].json()["error"]["code"] == "crash_loop"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert platform.reach(made["id"], "crash_loop")["restarts"] == 4


TICKING = """
import itertools, threading, time

def tick():
    for n in itertools.count():
        print("tick", n, flush=True)
        time.sleep(0.02)

threading.Thread(target=tick, daemon=True).start()

async def app(scope, receive, send): ...
"""


@pytest.mark.parametrize("who", ["gateway", "orchestrator"])
def test_whoever_follows_a_log_misses_no_line_when_one_of_us_is_killed(platform: Platform, who: str) -> None:
    made = platform.up().deploy("ticking", TICKING)
    with subprocess.Popen(
        [*command(), "logs", "ticking", "-f", "-n", "1", "--json"], env=platform.env, stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        lines = map(json.loads, following.stdout)
        said = [int(next(lines)["event"].split()[1]) for _ in range(10)]
        os.kill(platform.system(who), signal.SIGKILL)
        said += [int(next(lines)["event"].split()[1]) for _ in range(100)]
        assert said == list(range(said[0], said[0] + 110))
        with platform.http() as api:
            until("it can be deleted", lambda: api.delete(f"/faas/python/{made['id']}").status_code == 204)
        assert following.wait(10) == 0, "it ends with its deployment"


def test_when_the_keeper_is_killed_everything_ends_and_the_next_up_restores_it(
    platform: Platform, script: Callable[[str], str]
) -> None:
    platform.up()
    made = [platform.deploy(name, script(name)) for name in ("one", "two")]
    with client() as http:
        pids = [int(http.get(m["url"]).text.split()[1]) for m in made]
    os.kill(platform.system("keeper"), signal.SIGKILL)
    assert platform.process is not None
    platform.process.wait(5)
    until("everything has ended", lambda: not processes_of(platform.state) and not any(map(alive, pids)), 5)

    platform.up()
    with client() as http:
        for m in made:
            restored = platform.reach(m["id"], "ready")
            assert http.get(restored["url"]).text.startswith(m["name"])
    with platform.http() as api:
        assert sorted(i["name"] for i in api.get("/faas/python").json()["items"]) == ["one", "two"]
    runners = [p for p in processes_of(platform.state) if "runner" in Path(f"/proc/{p}/cmdline").read_text()]
    # zygotes are the keeper's own children, and instances those of wardens
    instances = [p for p in runners if (found := look(p)) is not None and found.parent != platform.pid]
    assert len(instances) == 2, "no orphans and no doubles"


BACKEND = """
import os, subprocess, sys, time

def get_requires_for_build_wheel(config_settings=None):
    # what compilers and their servers do: sessions of their own, and no environment that tells whose they are
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)", "TAG"]
    subprocess.Popen(sleeper, env={}, start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        os.execve(sleeper[0], sleeper, {})
    time.sleep(600)
"""

PROJECT = """
[project]
name = "slow-to-build"
version = "1.0"
dynamic = ["dependencies"]
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


def test_what_is_removed_leaves_no_socket_and_no_log_though_keepers_were_killed(
    platform: Platform, script: Callable[[str], str]
) -> None:
    made = platform.up().deploy("gone", script("gone"))
    sockets = socket_dir(platform.env)
    before = {path.name for path in sockets.iterdir()}
    assert {"orchestrator.sock", "jobs.sock"} < before
    assert len(before) == 3, "and the function's"
    (sockets / "of-nobody.sock").touch()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(sockets / "of-the-dead.sock"))
    os.utime(sockets / "of-the-dead.sock", (1, 1))
    for _ in range(2):
        os.kill(platform.system("keeper"), signal.SIGKILL)
        assert platform.process is not None
        platform.process.wait(5)
        platform.up()
    with platform.http() as api:
        assert api.delete(f"/faas/python/{made['id']}").status_code == 204

        def left_over() -> set[str]:
            return {path.name for folder in (sockets, platform.state / "logs") for path in folder.iterdir()}

        until(
            "nothing of it is left", lambda: left_over() == {"orchestrator.sock", "jobs.sock", "of-nobody.sock", "bema"}
        )


@pytest.mark.parametrize("how", ["orchestrator", "keeper", "rm", "stop"])
def test_a_build_ends_with_whoever_asked_for_it_and_two_of_one_deployment_never_run(
    platform: Platform, how: str
) -> None:
    folder = platform.state.parent / "slow-to-build"
    folder.mkdir()
    tag = f"{folder}/tag"
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND.replace("TAG", tag))

    def sleepers() -> set[int]:
        return {pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if tag in _words(pid)}

    def two(besides: set[int]) -> set[int]:
        return found if len(found := sleepers() - besides) >= 2 else set()

    with platform.up().http() as api:
        code = f'# /// script\n# dependencies = ["slow-to-build @ file://{folder}"]\n# ///\n' + MORTAL
        id = api.post("/faas/python", json={"name": "slow", "code": code}).json()["id"]
    first = until("its backend has left two behind", lambda: two(set()), 30)
    match how:
        case "orchestrator":
            os.kill(platform.system("orchestrator"), signal.SIGKILL)
            again = until("it is built again", lambda: two(first), 30)
            assert sleepers() == again
            return
        case "keeper":
            os.kill(platform.system("keeper"), signal.SIGKILL)
        case "rm":
            with platform.http() as api:
                assert api.delete(f"/faas/python/{id}").status_code == 204
        case "stop":
            assert platform.stop() == 0
    until("nothing of the build is left", lambda: not sleepers(), 5)


def _words(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0") if alive(pid) else []
    return []


def test_state_survives_an_orderly_restart(platform: Platform, script: Callable[[str], str]) -> None:
    made = platform.up().deploy("steady", script("steady"))
    gateway = platform.gateway
    assert platform.stop() == 0
    until("nothing is left", lambda: not processes_of(platform.state), 5)
    platform.up()
    assert platform.gateway == gateway, "the ports are kept"
    restored = platform.reach(made["id"], "ready")
    with client() as http:
        assert http.get(restored["url"]).text.startswith("steady")


def test_the_second_signal_ends_it_at_once(platform: Platform) -> None:
    made = platform.up().deploy("slow", SLOW)
    with client() as http:
        caller = threading.Thread(target=_swallow, args=(made["url"],))
        pid = int(http.get(made["url"]).text)
        caller.start()
        until("the slow request is in flight", lambda: _in_flight(platform, made["id"]))
        os.kill(platform.pid, signal.SIGTERM)
        until("it drains", lambda: "drain" in platform.output().lower() or not alive(platform.system("gateway")))
        os.kill(platform.pid, signal.SIGTERM)
        assert platform.process is not None
        platform.process.wait(5)
        until("the instance has ended", lambda: not alive(pid), 5)
        caller.join(10)


def _swallow(url: str) -> None:
    with contextlib.suppress(httpx2.HTTPError), client() as http:
        http.get(url + "/slow")


def test_a_second_up_on_the_same_state_is_refused_in_one_line(platform: Platform) -> None:
    platform.up()
    second = subprocess.run(
        [*command(), "up"], env=platform.env, capture_output=True, text=True, timeout=20, check=False
    )
    assert second.returncode == 1
    assert "already_up" in second.stderr
    assert "Traceback" not in second.stderr

"""One boot: the same endings, whatever a process was started to serve."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from bema.core.errors import BemaError
from tests.gateway.test_process import launched
from tests.runner.calling import TOKEN, calling
from tests.runner.conftest import Launch, Running

APP = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "http":
        print("called", flush=True)
        await asyncio.sleep(float(scope["query_string"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"whole"})
"""

SERVICE = """
import asyncio
from bema import service, endpoint

@service(name="counter", namespace="demo")
class Counter:
    @endpoint()
    async def sleeps(self, seconds: float) -> str:
        print("called", flush=True)
        await asyncio.sleep(seconds)
        return "whole"
"""


class Subject(NamedTuple):
    """A process that serves, its launcher's end of the channel, and `ask`: begin a request that takes so many seconds.

    The request runs when `ask` returns; it then tells whether it was answered whole.
    """

    process: subprocess.Popen[str]
    channel: socket.socket
    ask: Callable[[float], Future[bool]]

    def say(self, message: dict[str, Any]) -> None:
        self.channel.sendall(json.dumps(message).encode() + b"\n")


def aside(work: Callable[[], bool]) -> Future[bool]:
    """Run it in a thread."""
    future: Future[bool] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - it is the asker's
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def called(running: Running, work: Callable[[], bool]) -> Future[bool]:
    answer = aside(work)
    assert running.process.stdout is not None
    assert running.process.stdout.readline() == "called\n"
    return answer


@contextlib.contextmanager
def an_app(folder: Path) -> Iterator[Subject]:
    launch = Launch(folder)
    running = launch(APP).serving()

    def whole(seconds: float) -> bool:
        try:
            return running.get(f"/?{seconds}").text == "whole"
        except httpx2.TransportError:
            return False

    yield Subject(running.process, running.channel, lambda seconds: called(running, lambda: whole(seconds)))
    launch.close()


@contextlib.contextmanager
def a_service(folder: Path) -> Iterator[Subject]:
    launch = Launch(folder)
    running = launch(SERVICE, "service", "Counter", auth_token=TOKEN)
    said = running.start().hear()

    async def asked(seconds: float) -> bool:
        async with calling(said, "sleeps") as caller:
            try:
                return bool(await caller.client("sleeps").unary({"seconds": seconds}, timeout=60) == "whole")
            except BemaError:
                return False

    yield Subject(
        running.process, running.channel, lambda seconds: called(running, lambda: asyncio.run(asked(seconds)))
    )
    launch.close()


@contextlib.contextmanager
def a_gateway(folder: Path) -> Iterator[Subject]:
    with launched(folder) as g:

        def ask(seconds: float) -> Future[bool]:
            """A request whose body takes that long."""
            connection = socket.create_connection(("127.0.0.1", g.ports["control"]), timeout=60)
            connection.sendall(
                b"POST /faas/python HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer t\r\nExpect: 100-continue\r\n"
                b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")

            def whole() -> bool:
                with connection, contextlib.suppress(ConnectionResetError):
                    if not select.select([connection], [], [], seconds)[0]:
                        connection.sendall(b"[]")
                    return connection.recv(100).startswith(b"HTTP/1.1 4")
                return False

            return aside(whole)

        yield Subject(g.process, g.channel, ask)


KINDS = {"service": a_service, "app": an_app, "gateway": a_gateway}


@pytest.fixture(params=KINDS)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    with KINDS[request.param](tmp_path) as made:
        yield made


WAYS: dict[str, Callable[[Subject], None]] = {
    "stop": lambda subject: subject.say({"op": "shutdown", "deadline_ms": 20_000}),
    "SIGTERM": lambda subject: subject.process.send_signal(signal.SIGTERM),
    "SIGINT": lambda subject: subject.process.send_signal(signal.SIGINT),
    "the end of the channel": lambda subject: subject.channel.shutdown(socket.SHUT_WR),
}


@pytest.mark.parametrize("way", WAYS)
def test_asked_to_stop_it_finishes_what_runs_and_exits_0(subject, way):
    running = subject.ask(0.5)
    WAYS[way](subject)
    assert running.result(20) is True
    assert subject.process.wait(20) == 0


def test_what_outlives_the_grace_is_cut_and_the_exit_code_is_1(subject):
    running = subject.ask(60)
    subject.say({"op": "shutdown", "deadline_ms": 200})
    assert subject.process.wait(20) == 1
    assert subject.process.stderr is not None
    assert "calls were cut" in subject.process.stderr.read()
    assert running.result(20) is False


def test_the_second_signal_ends_it_at_once(subject):
    running = subject.ask(60)
    subject.process.send_signal(signal.SIGTERM)
    while catches(subject.process.pid, signal.SIGTERM):
        pass
    subject.process.send_signal(signal.SIGTERM)
    assert subject.process.wait(20) == -signal.SIGTERM
    assert running.result(20) is False


def test_a_stop_that_comes_with_nothing_running_ends_it_with_0(subject):
    subject.say({"op": "shutdown", "deadline_ms": 0})
    assert subject.process.wait(20) == 0


def test_an_unknown_word_of_the_launcher_ends_nothing(subject):
    subject.say({"op": "unheard_of"})
    assert subject.ask(0.0).result(20) is True
    subject.say({"op": "shutdown", "deadline_ms": 5000})
    assert subject.process.wait(20) == 0


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)

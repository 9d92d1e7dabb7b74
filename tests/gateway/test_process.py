"""The gateway as the keeper launches it: an Init with two sockets in, an Announce out, a Stop at the end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Launched:
    def __init__(self, process: subprocess.Popen[str], channel: socket.socket, ports: dict[str, int]) -> None:
        self.process = process
        self.channel = channel
        self.ports = ports
        self.announce = json.loads(channel.makefile().readline())

    def get(self, listener: str, path: str) -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[listener], timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        return answer.status, body

    def says(self, listener: str, raw: str) -> int:
        """The status that bytes are answered with."""
        with socket.create_connection(("127.0.0.1", self.ports[listener]), timeout=10) as client:
            client.sendall(raw.encode())
            return int(client.makefile("rb").readline().split()[1])


@contextmanager
def launched(state: Path, **settings: str) -> Iterator[Launched]:
    """The process, once it has announced itself."""
    (state / "token").write_text("t")
    listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in ("data", "control")}
    ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    init = {
        "orchestrator_api": "",
        "module_id": "gateway",
        "env": {},
        "listen": "",
        "listen_fds": {name: listener.fileno() for name, listener in listeners.items()},
        "settings": {
            "gateway_url": f"http://127.0.0.1:{ports['data']}",
            "api_url": f"http://127.0.0.1:{ports['control']}",
            "token_file": str(state / "token"),
            **settings,
        },
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "bema.gateway"],
        env={**os.environ, "BEMA_CHANNEL": str(theirs.fileno()), "BEMA_STATE_DIR": str(state)},
        pass_fds=[theirs.fileno(), *(listener.fileno() for listener in listeners.values())],
        stderr=subprocess.PIPE,
        text=True,
    )
    theirs.close()
    for listener in listeners.values():
        listener.close()
    try:
        ours.sendall(json.dumps(init).encode() + b"\n")
        yield Launched(process, ours, ports)
    finally:
        ours.close()
        process.kill()
        print(process.communicate()[1])


def test_it_announces_when_both_listeners_accept_and_ends_on_stop(tmp_path):
    with launched(tmp_path) as g:
        assert (g.announce["op"], g.announce["listen"]) == ("announce", f"http://127.0.0.1:{g.ports['data']}")
        assert g.get("data", "/")[0] == 404
        assert g.get("control", "/healthz") == (200, {"status": "ok"})
        assert g.get("control", "/readyz")[0] == 503
        assert g.get("control", "/faas/python")[0] == 401
        g.channel.sendall(b'{"op":"shutdown","deadline_ms":5000}\n')
        assert g.process.wait(20) == 0


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        ("Host: localhost", None),
        ("Host: bema.example:443", None),
        ("", 400),
        ("Host: localhost\r\nHost: localhost", 400),
        ("Host: evil.example", 403),
        ("Host: 127.0.0.1.evil.example", 403),
        ("Host: localhost\r\nOrigin: http://evil.example", 403),
    ],
)
def test_both_listeners_answer_to_their_own_names_alone(tmp_path, hosts, status):
    lines = f"{hosts}\r\n" if hosts else ""
    with launched(tmp_path, hosts="bema.example") as g:
        assert g.says("control", f"GET /healthz HTTP/1.1\r\n{lines}\r\n") == (status or 200)
        assert g.says("data", f"GET /nowhere HTTP/1.1\r\n{lines}\r\n") == (status or 404)


@pytest.mark.parametrize("way", ["signal", "the end of the channel"])
def test_a_signal_and_the_end_of_the_channel_stop_it_too(tmp_path, way):
    with launched(tmp_path) as g:
        if way == "signal":
            g.process.send_signal(signal.SIGTERM)
        else:
            g.channel.shutdown(socket.SHUT_WR)
        assert g.process.wait(20) == 0


def test_by_hand_it_says_who_starts_it():
    env = {name: value for name, value in os.environ.items() if name != "BEMA_CHANNEL"}
    ran = subprocess.run([sys.executable, "-m", "bema.gateway"], env=env, capture_output=True, text=True, timeout=30)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == ["error: the gateway is started by `bema up` Run `bema up`."]

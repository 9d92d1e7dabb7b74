"""A keeper with dummy children, and the orchestrator's link in the hands of the test."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import bema.deploy.keeper
from bema.core.naming import new_instance_id, show_instance_id
from bema.deploy.keeper.descriptors import DescriptorSocket
from bema.deploy.keeper.processes import die_with_parent, look

DUMMIES = Path(__file__).parent / "dummies"
KEEPER = Path(bema.deploy.keeper.__file__).parent / "__main__.py"


def until(so: Callable[[], Any], seconds: float = 5.0) -> Any:
    """Wait for what only the operating system can say; returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := so()):
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)
    return value


def alive(pid: int) -> bool:
    return look(pid) is not None


def ask(address: Any) -> str:
    """The answer of whoever accepts at `address`."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect(address)
        return client.makefile().read()


def _prepare(parent: int, limited: Callable[[], None] | None) -> None:
    # who kills the tests leaves no keeper behind, and no keeper leaves anything behind
    die_with_parent(parent)
    if limited is not None:
        limited()


class Platform:
    def __init__(self, folder: Path, **changes: Any) -> None:
        self.state = folder / "state"
        self.state.mkdir(exist_ok=True)
        self.folder = folder
        self.changes = changes
        self._ids = itertools.count()
        self._events: list[Any] = []
        self.process: subprocess.Popen[str]

    def up(self) -> Platform:
        lock = os.open(self.state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.data = socket.create_server(("127.0.0.1", 0))
        self.address = self.data.getsockname()
        reading, writing = os.pipe()
        os.write(writing, json.dumps(self._config(lock)).encode())
        os.close(writing)
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(KEEPER), str(reading)],
            pass_fds=(reading, lock, self.data.fileno()),
            stdout=self.changes.get("output", subprocess.PIPE),
            stderr=self.changes.get("output", subprocess.PIPE),
            text=True,
            preexec_fn=functools.partial(_prepare, os.getpid(), self.changes.get("limited")),
        )
        for fd in (reading, lock):
            os.close(fd)
        self.data.close()
        return self

    def ready(self) -> Platform:
        self.up()
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready at this address\n"
        self.connect()
        return self

    def _config(self, lock: int) -> dict[str, Any]:
        child = {"env": {"PATH": os.environ["PATH"]}, "cwd": str(self.folder), "listen": None}
        settings = {"relay": str(self.folder / "relay")}
        return {
            "state": str(self.state),
            "lock": lock,
            "children": [
                {
                    **child,
                    "name": "orchestrator",
                    "argv": [sys.executable, str(DUMMIES / "orchestrator.py")],
                    "init": {"settings": settings},
                    "listen_fds": {},
                    "link": True,
                },
                {
                    **child,
                    "name": "gateway",
                    "argv": [sys.executable, str(DUMMIES / "gateway.py")],
                    "init": {"settings": self.changes.get("gateway", {})},
                    "listen_fds": {"data": self.data.fileno()},
                    "link": False,
                },
            ],
            "up": {"gateway": "http://127.0.0.1", "version": "0"},
            "banner": "ready at this address",
            "log": {"line": 1024, "file": 64 * 1024, "files": 2},
            "line": 1 << 20,
            "start": 10.0,
            "drain": 5.0,
            "stop": 5.0,
        }

    # the orchestrator's link

    def connect(self) -> None:
        self._disconnect()

        def connected() -> bool:
            self._link = socket.socket(socket.AF_UNIX)
            self._link.settimeout(10)
            try:
                self._link.connect(str(self.folder / "relay"))
            except OSError:
                self._link.close()
                return False
            return True

        until(connected)
        _, [descriptors], _, _ = socket.recv_fds(self._link, 1, 1)
        self.descriptors = DescriptorSocket(socket.socket(fileno=descriptors))
        self._lines = self._link.makefile()
        self._events.clear()

    def request(self, op: str, *, carried: Mapping[str, int] | None = None, **arguments: Any) -> Any:
        number = self.number = next(self._ids)
        for name, descriptor in (carried or {}).items():
            self.descriptors.send(number, name, descriptor)
        self._link.sendall(json.dumps({"id": number, "op": op, **arguments}).encode() + b"\n")
        return self.answer(number)

    def answer(self, number: int) -> Any:
        """The answer to a request, which may come after those to others."""
        for known in self._events:
            if known.get("id") == number:
                self._events.remove(known)
                return known
        while (message := self._hear()).get("id") != number:
            self._events.append(message)
        return message

    def event(self, name: str) -> Any:
        for known in self._events:
            if known.get("event") == name:
                self._events.remove(known)
                return known
        while (message := self._hear()).get("event") != name:
            self._events.append(message)
        return message

    def _hear(self) -> Any:
        line = self._lines.readline()
        assert line, "the link ended"
        return json.loads(line)

    def spawn(self, mode: str = "serve", deployment: str = "d1", **changes: Any) -> Any:
        number = new_instance_id()
        self.last = number
        label = show_instance_id(number)
        lease = self.lease(label)
        try:
            return self._spawn(number, label, lease, {"deployment": deployment, "env": {"MODE": mode}, **changes})
        finally:
            os.close(lease)

    def lease(self, label: str) -> int:
        """A lock file of that name, held by the descriptor."""
        path = self.folder / "d" / f"{label}.lock"
        path.parent.mkdir(exist_ok=True)
        lease = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lease, fcntl.LOCK_EX)
        return lease

    def _spawn(self, number: int, label: str, lease: int, changes: dict[str, Any]) -> Any:
        return self.request(
            "spawn",
            carried={"lease_fd": lease, **changes.pop("carried_too", {})},
            **{
                "instance": number,
                "name": "dummy",
                "version": "v1",
                "argv": [sys.executable, str(DUMMIES / "instance.py")],
                "cwd": str(self.folder),
                "init": {"instance": label},
                "listen": f"unix:{self.folder}/{changes['deployment']}.sock",
                "slot": f"{changes['deployment']}/v1/0",
                "inherit": ["lease_fd"],
            }
            | changes,
        )

    def serving(self, mode: str = "serve", deployment: str = "d1") -> int:
        """The pid of a fresh instance that has announced itself."""
        answer = self.spawn(mode, deployment)
        assert "ok" in answer, answer
        self.event("announced")
        return int(answer["ok"]["pid"])

    def log(self, deployment: str = "d1") -> list[Any]:
        """Every record of a deployment, oldest file first."""
        files = sorted(
            (self.state / "logs" / deployment).iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name)
        )
        return [json.loads(line) for path in files for line in path.read_text().splitlines()]

    def printed(self, deployment: str = "d1") -> list[int]:
        """The numbers that a deployment wrote to its standard output."""
        return [int(line["event"]) for line in self.log(deployment) if line["stream"] == "stdout"]

    def pid_of(self, name: str) -> Any:
        roster = json.loads((self.state / "keeper.json").read_text())
        return next((child["pid"] for child in roster["children"] if child["name"] == name), None)

    def replace_orchestrator(self) -> None:
        """Kill the one there is, and take the place of the next."""
        old = self.pid_of("orchestrator")
        os.kill(old, signal.SIGKILL)
        until(lambda: self.pid_of("orchestrator") not in (None, old))
        self.connect()

    def pids(self) -> list[int]:
        return [child["pid"] for child in json.loads((self.state / "keeper.json").read_text())["children"]]

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self) -> tuple[int, str]:
        """(exit code, what it said on stderr)"""
        _, said = self.process.communicate(timeout=15)
        return self.process.returncode, said

    def close(self) -> None:
        if self.process.poll() is None:
            for _ in range(2):
                self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ValueError):
            self.process.communicate(timeout=10)
        self._disconnect()

    def _disconnect(self) -> None:
        for end in ("_lines", "_link", "descriptors"):
            if hasattr(self, end):
                getattr(self, end).close()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    platform = Platform(tmp_path)
    yield platform
    platform.close()

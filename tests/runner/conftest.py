"""A launcher in the hands of the test: the real runner in a process, its channel, its listener and its lease."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import bema
import bema.runner

RUNNER = Path(bema.runner.__file__).with_name("__main__.py")
PLATFORM = str(Path(bema.__file__).parents[1])


class Running:
    def __init__(
        self, folder: Path, code: str, kind: str, name: str, /, *, also: tuple[int, ...] = (), **init: Any
    ) -> None:
        """`also` are descriptors that the process inherits beside its own."""
        self.script = folder / "script" / "given.py"
        self.script.parent.mkdir()
        self.script.write_text(code)
        self.path = str(folder / "s.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(20)
        self.lease = os.open(folder / "lease", os.O_RDWR | os.O_CREAT)
        self.lines = self.channel.makefile()
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(RUNNER)],
            pass_fds=(theirs.fileno(), self.listener.fileno(), self.lease, *also),
            env={"BEMA_CHANNEL": str(theirs.fileno()), "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        theirs.close()
        self.init = {
            "orchestrator_api": "",
            "module_id": "one",
            "env": {},
            "listen": self.path,
            "listen_fd": self.listener.fileno(),
            "lease_fd": self.lease,
            "instance": "0123456789abc",
            "script": str(self.script),
            "entry": {"kind": kind, "name": name},
            "platform": PLATFORM,
            "host": "bema.sdk.host:run",
            **init,
        }

    def say(self, *messages: dict[str, Any]) -> Running:
        """Several lines in one write: the runner must take no more than its own."""
        self.channel.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
        return self

    def start(self) -> Running:
        return self.say(self.init)

    def hear(self) -> dict[str, Any]:
        line = self.lines.readline()
        assert line, f"the channel ended: {self.process.communicate(timeout=20)}"
        heard: dict[str, Any] = json.loads(line)
        return heard

    def serving(self) -> Running:
        assert self.start().hear()["op"] == "announce"
        return self

    def http(self) -> httpx2.Client:
        return httpx2.Client(
            transport=httpx2.HTTPTransport(uds=self.path), base_url="http://127.0.0.1:8700", timeout=20, trust_env=False
        )

    def get(self, path: str, **how: Any) -> httpx2.Response:
        with self.http() as http:
            return http.get(path, **how)

    def stop(self, deadline_ms: int = 2000) -> int:
        self.say({"op": "shutdown", "deadline_ms": deadline_ms})
        return self.ended()[0]

    def ended(self) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)"""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(ValueError):
            self.process.communicate(timeout=10)
        self.lines.close()
        self.channel.close()
        self.listener.close()
        os.close(self.lease)


class Launch:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Running] = []

    def __call__(self, code: str, kind: str = "app", name: str = "app", /, **init: Any) -> Running:
        made = Running(self._folder, code, kind, name, **init)
        self._made.append(made)
        return made

    def close(self) -> None:
        for made in self._made:
            made.close()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    launch = Launch(tmp_path)
    yield launch
    launch.close()

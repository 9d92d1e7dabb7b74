"""`bema up` as a user starts it: a process, its state directory, what it printed, and what is left of it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from bema.deploy.keeper.processes import die_with_parent

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def command() -> list[str]:
    """The `bema` under test: this checkout's, or the one of the environment named by BEMA_STORY_PYTHON."""
    return [os.environ.get("BEMA_STORY_PYTHON", sys.executable), "-m", "bema"]


def until(what: str, probe: Callable[[], T | None], seconds: float = 10.0) -> T:
    """Poll an outcome of the operating system or of another process until it is there; fail naming it."""
    end = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_of(state: Path) -> list[int]:
    """Every process that was started on this state directory, found by its environment or its arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if os.fsencode(state) in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return [pid for pid in found if alive(pid)]


class Platform:
    """One `bema up` on one state directory."""

    def __init__(self, state: Path) -> None:
        self.state = state
        # where deployed scripts leave notes for the test
        self.shared = state.parent / "shared"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("BEMA_") and k != "PYTHONDONTWRITEBYTECODE"},
            "BEMA_STATE_DIR": str(state),
            "BEMA_ISOLATION__WRITE": str(self.shared),
        }
        self.process: subprocess.Popen[str] | None = None
        self.gateway = self.api = ""

    def up(self, *arguments: str, seconds: float = 30.0) -> Platform:
        self.shared.mkdir(exist_ok=True)
        with (self.state.parent / f"{self.state.name}.out").open("a") as out:
            self.process = subprocess.Popen(
                [*command(), "up", *arguments],
                env=self.env,
                cwd=self.state.parent,
                stdout=out,
                stderr=out,
                text=True,
                # who kills the tests leaves no platform behind
                preexec_fn=functools.partial(die_with_parent, os.getpid()),
            )
        status = until(f"bema up\n{self.output()}", self._status, seconds)
        self.gateway, self.api = status["gateway"].rstrip("/"), status["api"].rstrip("/")
        return self

    def _status(self) -> dict[str, Any] | None:
        assert self.process is not None
        assert self.process.poll() is None, f"`bema up` ended with {self.process.returncode}:\n{self.output()}"
        with contextlib.suppress(OSError, ValueError):
            status: dict[str, Any] = json.loads((self.state / "up.json").read_text())
            if status["pid"] == self.process.pid:
                return status
        return None

    def output(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.state.parent / f"{self.state.name}.out").read_text()
        return ""

    def bema(self, *arguments: str, seconds: float = 90.0, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command(), *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            **kwargs,
        )

    def json(self, *arguments: str) -> Any:
        done = self.bema(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def token(self) -> str:
        return (self.state / "token").read_text().strip()

    @contextlib.contextmanager
    def http(self, seconds: float = 30.0) -> Iterator[httpx2.Client]:
        """A client of the control listener, holding the admin's token."""
        with httpx2.Client(
            base_url=self.api, headers={"authorization": f"Bearer {self.token}"}, timeout=seconds, trust_env=False
        ) as client:
            yield client

    def deploy(self, name: str, code: str, state: str = "ready", seconds: float = 90.0) -> dict[str, Any]:
        """Deploy a script through the API and wait until it has reached `state`."""
        with self.http() as api:
            answer = api.post("/faas/python", json={"name": name, "code": code})
            assert answer.status_code == 202, answer.text
            return self.reach(answer.json()["id"], state, seconds)

    def reach(self, deployment: str, state: str, seconds: float = 90.0) -> dict[str, Any]:
        with self.http() as api:
            seen: dict[str, Any] = {}

            def reached() -> dict[str, Any] | None:
                seen.update(api.get(f"/faas/python/{deployment}").json())
                return seen if seen["state"] == state else None

            try:
                return until(f"{deployment} is {state}", reached, seconds)
            except AssertionError as error:
                raise AssertionError(f"{error}: {json.dumps(seen, indent=1)}") from None

    def system(self, name: str) -> int:
        """The pid of one of the platform's own processes: keeper, orchestrator or gateway."""
        record = json.loads((self.state / "keeper.json").read_text())
        return self.pid if name == "keeper" else next(int(c["pid"]) for c in record["children"] if c["name"] == name)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self, sig: signal.Signals = signal.SIGINT, seconds: float = 40.0) -> int:
        """Stop as Ctrl-C does, and tell the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(seconds)

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            # what ends by itself now knows more of what was started than can be found from here
            with contextlib.suppress(AssertionError):
                until("it has ended by itself", lambda: not processes_of(self.state), 5)
        # one that was just being started is in no first list
        until("every process of the platform has ended", lambda: not _killed(processes_of(self.state)))


def _killed(pids: list[int]) -> list[int]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids

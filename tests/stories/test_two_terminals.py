"""Two terminals: a service in one, calls from the other, and nothing else started."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stories.harness import EXAMPLES, command

CLIENT = """
import asyncio
import bema

async def main():
    async with bema.connect() as runtime:
        client = await runtime.namespace("demo").component("worker").endpoint("generate").client()
        async for token in client.generate({"text": "hello"}):
            print(token, flush=True)

asyncio.run(main())
"""
TOKENS = ["token1", "token2", "token3"]


class Terminal:
    """Runs commands in a folder of its own, as a user does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = command()[0]
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BEMA_")},
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "HOME": str(folder),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(arguments, env=self.env, cwd=self.folder, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    (tmp_path / "run").mkdir(mode=0o700)
    return Terminal(tmp_path)


@pytest.fixture
def worker(terminal: Terminal) -> Iterator[subprocess.Popen[str]]:
    process = terminal.start(terminal.python, str(EXAMPLES / "worker.py"))
    assert process.stderr is not None
    assert "demo.worker is ready" in process.stderr.readline()
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_the_worker_is_called_from_the_shell_and_from_python(terminal: Terminal, worker: subprocess.Popen[str]) -> None:
    called = terminal.run(*command(), "call", "demo.worker.generate", "text=hello", "--stream")
    assert (called.returncode, called.stdout.splitlines()) == (0, TOKENS), called.stderr
    client = terminal.run(terminal.python, "-c", CLIENT)
    assert (client.returncode, client.stdout.splitlines()) == (0, TOKENS), client.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_it_ends_as_it_is_asked_to_and_leaves_nothing(
    terminal: Terminal, worker: subprocess.Popen[str], number: signal.Signals
) -> None:
    worker.send_signal(number)
    _, said = worker.communicate(timeout=10)
    assert worker.returncode == 0
    assert "Traceback" not in said
    gone = terminal.run(*command(), "call", "demo.worker.generate")
    assert gone.returncode == 3
    assert [path.name for path in (terminal.folder / "run" / "bema" / "d").iterdir()] == [".fence"]


@pytest.mark.slow
def test_two_workers_share_the_calls_and_one_may_die(terminal: Terminal, worker: subprocess.Popen[str]) -> None:
    other = terminal.start(sys.executable, str(EXAMPLES / "worker.py"))
    try:
        assert other.stderr is not None
        assert "ready" in other.stderr.readline()
        assert len(terminal.run(*command(), "ls").stdout.splitlines()) == 3
        other.kill()
        other.communicate()
        for _ in range(2):
            called = terminal.run(*command(), "call", "demo.worker.generate", "--stream")
            assert called.stdout.splitlines() == TOKENS, called.stderr
    finally:
        if other.poll() is None:
            other.kill()
            other.communicate()

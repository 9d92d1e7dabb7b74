"""`dev.py setup` is ended at any instant, and the next run mends what it left: with real processes, as users end them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.stories.harness import until

ROOT = Path(__file__).parents[1]
PYTHON = getattr(sys, "_base_executable", sys.executable)
INSTANTS, CHAINS = 30, 4
LONGEST = 8.0
"""Seconds over which the instants are spread at most: on a busy machine they are early ones."""

WAYS = ("Ctrl-C", "kill -9 of all", "kill -9 of dev.py alone")


class Checkout:
    """What `setup` needs of a checkout, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("dev.py", "uv.lock", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder)
        for name in ("bema", "tools"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))

    def start(self) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONSAFEPATH")}
        with self.output.open("w") as out:
            return subprocess.Popen(
                [PYTHON, "dev.py", "setup"],
                cwd=self.folder,
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def output(self) -> Path:
        return self.folder.with_suffix(".out")

    def says(self, process: subprocess.Popen[bytes], text: str) -> None:
        until(text, lambda: text in self.output.read_text() or process.poll() is not None)
        assert text in self.output.read_text()

    def whole(self) -> float:
        """A run that nobody ends; how long it took. Afterwards every file of every package is there, and bema runs."""
        began = time.monotonic()
        assert self.start().wait(100) == 0, self.output.read_text()
        took = time.monotonic() - began
        self.assert_whole()
        return took

    def assert_whole(self) -> None:
        assert json.loads((self.folder / ".venv/.bema-setup.json").read_text())["extras"] == ["dev"]
        python = self.folder / ".venv/bin/python"
        done = subprocess.run([python, "-I", "-c", COMPLETE], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, ""), done
        bema = subprocess.run([self.folder / ".venv/bin/bema", "--version"], capture_output=True, text=True)
        assert bema.returncode == 0, bema.stderr

    def ended(self, after: float, way: str) -> None:
        """A run that is ended at one instant. One that was quicker has to have succeeded."""
        process = self.start()
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            if way == "Ctrl-C":
                os.killpg(process.pid, signal.SIGINT)
            elif way == "kill -9 of all":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        code = process.wait(20)
        said = f"{way} after {after:.2f} s: {code} {self.output.read_text()}"
        assert code in (0, 130, -signal.SIGINT, -signal.SIGKILL), said


COMPLETE = """
import importlib.metadata as metadata
for package in metadata.distributions():
    for file in package.files or ():
        if not file.locate().exists() and file.suffix != ".pyc":
            print(package.metadata["Name"], file)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_setup_that_is_ended_at_any_of_thirty_instants_is_mended_by_the_next(tmp_path):
    first = Checkout(tmp_path / "measured")
    took = min(first.whole(), LONGEST)

    def chain(number: int) -> None:
        checkout = Checkout(tmp_path / f"checkout-{number}")
        # each begins with what the one before it left, and gets further than that one
        for step in range(number, INSTANTS, CHAINS):
            checkout.ended(took * (step + 1) / (INSTANTS + 1), WAYS[step % len(WAYS)])
        checkout.whole()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(chain, range(CHAINS))) == [None] * CHAINS


@pytest.mark.slow
def test_a_step_that_goes_on_when_dev_py_was_killed_keeps_the_next_run_waiting(tmp_path):
    checkout = Checkout(tmp_path / "checkout")
    process = checkout.start()
    checkout.says(process, "making .venv")
    # it says so before it begins: killed in between, it leaves no step that goes on
    steps = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until("a step runs", lambda: steps.read_text().split())
    process.kill()
    process.wait()
    again = checkout.start()
    checkout.says(again, "waiting for another dev.py")
    assert again.wait(100) == 0, checkout.output.read_text()
    checkout.assert_whole()

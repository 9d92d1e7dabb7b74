"""Schedules in real processes: one that is killed, and the command line beside them."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.test_extension import Terminal

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("clockwork.py")


class Clocks(Terminal):
    def begin(self) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, str(PROGRAM)], stderr=subprocess.PIPE, text=True)
        self.workers.append(process)
        assert process.stderr is not None
        assert "demo.clockwork is ready" in process.stderr.readline()
        return process

    def ticks(self) -> list[str]:
        return [line for line in self.did if line.startswith("tick")]

    def until_ticks(self, count: int) -> None:
        until = time.monotonic() + 30
        while len(set(self.ticks())) < count:
            assert time.monotonic() < until, self.did
            time.sleep(0.01)  # another process writes the file

    def schedules(self) -> dict[str, dict[str, Any]]:
        done = self.bema("schedules", "ls", "--json")
        assert done.returncode == 0, done.stderr
        return {each["name"]: each for each in json.loads(done.stdout)}


@pytest.fixture
def clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clocks]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SHOP_LOG", str(tmp_path / "shop.log"))
    clocks = Clocks(tmp_path)
    yield clocks
    for process in clocks.workers:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def test_an_owner_that_is_killed_is_followed_by_one_that_fires_on_and_nothing_twice(clocks):
    first = clocks.begin()
    second = clocks.begin()
    clocks.until_ticks(2)
    first.kill()
    clocks.until_ticks(5)
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0
    calls = json.loads(clocks.bema("calls", "ls", "--count", "100", "--json").stdout)
    keys = [call["key"] for call in calls if call["route"] == "demo.clockwork.tick"]
    assert len(keys) == len(set(keys)) >= 5
    assert all(key.startswith("schedule tick ") for key in keys)


def test_schedules_are_looked_after_with_and_without_a_worker(clocks):
    worker = clocks.begin()
    clocks.until_ticks(1)
    assert clocks.bema("schedules", "pause", "tick", "demo.clockwork").returncode == 0
    shown = clocks.schedules()
    assert (shown["tick"]["paused"], shown["tick"]["when"], shown["tick"]["next"]) == (True, "every 1 s", 0)
    assert (shown["nightly"]["when"], shown["nightly"]["fired"]) == ("0 3 * * * Europe/Berlin", 0)
    assert shown["nightly"]["next"] > time.time() * 1_000_000
    made = clocks.bema("schedules", "run", "nightly")
    assert made.returncode == 0, made.stderr
    clocks.until("clean dust nightly")
    watched = clocks.bema("calls", "watch", made.stdout.strip())
    assert watched.stdout.splitlines()[-1] == "done"
    assert clocks.bema("call", "demo.clockwork.clean", "what=sand").stdout == "no sand\n", (
        "its callers are answered as ever"
    )
    assert "clean sand by hand" in clocks.did
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0

    ticked = len(clocks.ticks())
    assert clocks.schedules()["tick"]["paused"]
    later = clocks.bema("schedules", "run", "nightly")
    assert later.returncode == 0, "it is written down, and done by whoever comes"
    worker = clocks.begin()
    watched = clocks.bema("calls", "watch", later.stdout.strip())
    assert watched.stdout.splitlines()[-1] == "done"
    assert len(clocks.ticks()) == ticked, "paused over the start"
    assert "every 1 s" in clocks.bema("schedules", "resume", "tick").stdout
    clocks.until_ticks(ticked + 2)
    missing = clocks.bema("schedules", "pause", "tock")
    assert (missing.returncode, "there is no schedule 'tock'" in missing.stderr) == (1, True)
    table = clocks.bema("schedules", "ls").stdout
    assert "nightly" in table
    assert "demo.clockwork.clean" in table

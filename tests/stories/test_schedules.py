"""Schedules of what is deployed: whoever is killed, each instant comes once, and a pause holds."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stories.harness import Platform, until

pytestmark = pytest.mark.slow

CLOCKWORK = """
import os
from pathlib import Path
from bema import Call, endpoint, schedule, service

LOG = Path("LOGFILE")

async def note(what: str) -> None:
    with LOG.open("a") as log:
        log.write(f"{os.getpid()} {what}\\n")

@service(name="clockwork", namespace="demo")
class Clockwork:
    @schedule(every=1)
    @endpoint(durable=True)
    async def tick(self, call: Call) -> None:
        await call.step(note, call.metadata["bema-scheduled"])

    @schedule("0 3 * * *", tz="Europe/Berlin", name="nightly")
    @endpoint(idempotent=True)
    async def clean(self, days: int = 30) -> str:
        return f"what is older than {days} days"
"""


class Clockwork:
    def __init__(self, platform: Platform, folder: Path) -> None:
        platform.up()
        self.platform = platform
        self._log = folder / "ticks.log"
        platform.deploy("clockwork", CLOCKWORK.replace("LOGFILE", str(self._log)))

    @property
    def ticks(self) -> list[list[str]]:
        return [line.split(" ") for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def until_more(self, count: int = 2) -> None:
        seen = {at for _, at in self.ticks}
        until("more ticks", lambda: len({at for _, at in self.ticks} - seen) >= count, 40)

    def schedules(self) -> dict[str, Any]:
        # without a service that is there it says so, and prints nothing
        done = self.platform.bema("schedules", "ls", "demo.clockwork", "--json")
        return {each["name"]: each for each in json.loads(done.stdout or "[]")}


def kill_instance(clockwork: Clockwork) -> None:
    os.kill(int(clockwork.ticks[-1][0]), signal.SIGKILL)


def kill_jobs(clockwork: Clockwork) -> None:
    os.kill(clockwork.platform.system("jobs"), signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_instance, kill_jobs])
def test_whoever_is_killed_the_clock_goes_on_and_each_instant_is_one_call(
    kill: Callable[[Clockwork], None], platform: Platform, tmp_path: Path
) -> None:
    clockwork = Clockwork(platform, platform.shared)
    clockwork.until_more()
    kill(clockwork)
    clockwork.until_more(3)
    calls = json.loads(platform.bema("calls", "ls", "demo.clockwork", "--count", "200", "--json").stdout)
    keys = [call["key"] for call in calls if call["route"] == "demo.clockwork.tick"]
    assert len(keys) == len(set(keys)) >= 5
    assert all(call["state"] in ("queued", "running", "done") for call in calls)


def test_schedules_of_what_is_deployed_are_looked_after(platform: Platform) -> None:
    clockwork = Clockwork(platform, platform.shared)
    clockwork.until_more(1)
    paused = platform.bema("schedules", "pause", "tick", "demo.clockwork")
    assert paused.returncode == 0, paused.stderr
    kill_jobs(clockwork)
    until("the service, again", lambda: "tick" in clockwork.schedules(), 40)
    shown = clockwork.schedules()
    assert shown["tick"]["paused"]
    assert shown["nightly"]["when"] == "0 3 * * * Europe/Berlin"
    made = platform.bema("schedules", "run", "nightly")
    assert made.returncode == 0, made.stderr
    ended = platform.bema("calls", "watch", made.stdout.strip())
    assert ended.stdout.splitlines()[-1] == "done", ended.stderr
    assert "what is older than 30 days" in platform.bema("calls", "show", made.stdout.strip()).stdout

"""Durable calls of what is deployed: whoever is killed in the middle, each call comes to its end, and each step that is recorded stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stories.harness import Platform, alive, command, until

pytestmark = pytest.mark.slow

SHOP = """
import asyncio, os
from pathlib import Path
from bema import Call, endpoint, service

LOG = Path("LOGFILE")

def note(what):
    with LOG.open("a") as log:
        log.write(f"{what} {os.getpid()}\\n")

async def charge(number: int) -> str:
    note(f"charge {number}")
    return f"receipt {number}"

async def ship(receipt: str) -> str:
    note(f"ship {receipt}")
    while not LOG.with_name("open").exists():
        await asyncio.sleep(0.01)
    return f"{receipt}, shipped"

@service(name="shop", namespace="demo")
class Shop:
    @endpoint(durable=True)
    async def order(self, number: int, call: Call) -> str:
        receipt = await call.step(charge, number)
        return await call.step(ship, receipt)

    @endpoint(durable=True)
    async def approve(self, what: str, call: Call) -> str:
        return f"{what}: {'yes' if await call.ask(bool, what) else 'no'}"
"""
HELLO = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""


class Shop:
    """A shop that is deployed, whose second step waits until it is told to go on."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self.platform = platform
        self.log = folder / "shop.log"
        self._go = folder / "open"
        self.deployed = platform.deploy("shop", SHOP.replace("LOGFILE", str(self.log)))

    @property
    def did(self) -> list[list[str]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.rsplit(" ", 1) for line in lines]

    def steps(self) -> list[str]:
        return [what for what, _ in self.did]

    def instance(self) -> int:
        """The process that runs the last step."""
        return int(self.did[-1][1])

    def order(self, number: int) -> subprocess.Popen[str]:
        arguments = [*command(), "call", "demo.shop.order", f"number={number}"]
        return subprocess.Popen(
            arguments, env=self.platform.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def go_on(self) -> None:
        self._go.touch()


def _answer(caller: subprocess.Popen[str]) -> str:
    out, said = caller.communicate(timeout=40)
    assert caller.returncode == 0, said
    return out.strip()


def kill_instance(shop: Shop) -> None:
    os.kill(shop.instance(), signal.SIGKILL)


def kill_jobs(shop: Shop) -> None:
    os.kill(shop.platform.system("jobs"), signal.SIGKILL)


def kill_orchestrator(shop: Shop) -> None:
    os.kill(shop.platform.system("orchestrator"), signal.SIGKILL)


def kill_keeper(shop: Shop) -> None:
    shop.platform.stop(signal.SIGKILL)
    shop.platform.up()


@pytest.mark.parametrize(
    ("kill", "again"), [(kill_instance, True), (kill_jobs, True), (kill_orchestrator, False), (kill_keeper, True)]
)
def test_a_caller_gets_its_answer_whoever_is_killed_in_the_second_step(
    platform: Platform, kill: Callable[[Shop], None], again: bool
) -> None:
    platform.up()
    shop = Shop(platform, platform.shared)
    caller = shop.order(1)
    until("the second step", lambda: "ship receipt 1" in shop.steps())
    kill(shop)
    if again:
        until("the second step, again", lambda: shop.steps().count("ship receipt 1") == 2, 20)
    shop.go_on()
    assert _answer(caller) == "receipt 1, shipped"
    assert shop.steps().count("charge 1") == 1
    (call,) = platform.json("calls", "ls")
    assert call["state"] == "done"


def test_a_stopped_instance_loses_its_calls_and_writes_nothing_when_it_wakes(platform: Platform) -> None:
    platform.env |= {"BEMA_LIMITS__JOBS_LEASE": "1"}
    platform.up()
    shop = Shop(platform, platform.shared)
    caller = shop.order(2)
    until("the second step", lambda: "ship receipt 2" in shop.steps())
    os.kill(shop.instance(), signal.SIGSTOP)
    (call,) = platform.json("calls", "ls")
    until("its lease is over", lambda: _fence(platform, call["id"])[0] == "queued", 20)
    os.kill(shop.instance(), signal.SIGCONT)
    until("it has joined again", lambda: shop.steps().count("ship receipt 2") == 2, 20)
    shop.go_on()
    assert _answer(caller) == "receipt 2, shipped"
    state, fence, steps = _fence(platform, call["id"])
    assert (state, fence >= 2, steps) == ("done", True, ["step 1 charge", "step 2 ship"])


def _fence(platform: Platform, id: str) -> tuple[str, int, list[str]]:
    shown = json.loads(platform.bema("calls", "show", id, "--json").stdout)
    return shown["state"], shown["fence"], [step["what"] for step in shown["steps"]]


def test_the_service_runs_when_it_is_needed_and_calls_are_seen_and_answered_without_an_instance(
    platform: Platform,
) -> None:
    platform.up()
    platform.deploy("hello", HELLO)
    names = [child["name"] for child in json.loads((platform.state / "keeper.json").read_text())["children"]]
    assert "jobs" not in names, "nothing durable is deployed"
    shop = Shop(platform, platform.shared)
    asking = subprocess.Popen(
        [*command(), "call", "demo.shop.approve", "what=tea"], env=platform.env, stdout=subprocess.PIPE, text=True
    )
    (call,) = until("it asks", lambda: platform.json("calls", "ls", "--state", "asking"))
    platform.stop()
    asking.kill()
    asking.communicate()
    # at rest its file is read by the command itself
    assert [one["id"] for one in platform.json("calls", "ls")] == [call["id"]]
    platform.up()
    # started at once: there is an unfinished call, whose instance is not there yet
    assert alive(platform.system("jobs"))
    platform.reach(shop.deployed["id"], "ready")
    until("answered", lambda: platform.bema("calls", "answer", call["id"], "true").returncode == 0)
    ended = until("its end", lambda: [one for one in platform.json("calls", "ls") if one["state"] == "done"])
    assert ended[0]["id"] == call["id"]
    platform.bema("rm", "shop")
    assert [one["id"] for one in platform.json("calls", "ls", "demo.shop")] == [call["id"]], (
        "calls are data: rm keeps it"
    )


def test_a_drain_of_the_platform_puts_calls_away(platform: Platform) -> None:
    platform.up()
    shop = Shop(platform, platform.shared)
    caller = shop.order(3)
    until("the second step", lambda: "ship receipt 3" in shop.steps())
    assert platform.stop() == 0
    platform.up()
    shop.go_on()
    assert _answer(caller) == "receipt 3, shipped"
    assert shop.steps().count("charge 3") == 1

"""A deployed instance says that it is not ready, or stands still: everybody sees it, and nobody is sent there meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.stories.harness import Platform, until

pytestmark = pytest.mark.slow

MOODY = """
import time
from pathlib import Path
from bema import endpoint, readiness, service

@service(name="moody", namespace="demo")
class Moody:
    def __init__(self) -> None:
        self.rests_until = self.asked_until = ""

    @endpoint()
    async def rest(self, until: str) -> None:
        self.rests_until = until

    @endpoint()
    async def rested(self) -> bool:
        return Path(self.rests_until).exists()

    @endpoint()
    async def block(self, until: str) -> str:
        while not Path(until).exists():
            time.sleep(0.01)  # the whole loop, as people do
        return "whole"

    @readiness
    def is_well(self) -> bool:
        return not self.rests_until or Path(self.rests_until).exists()
"""


class Calling:
    """A request of a thread of its own; `answer` waits for it."""

    def __init__(self, url: str, **arguments: Any) -> None:
        self._answers: list[httpx2.Response] = []
        self._thread = threading.Thread(target=self._call, args=(url, arguments), daemon=True)
        self._thread.start()

    def _call(self, url: str, arguments: dict[str, Any]) -> None:
        with httpx2.Client(timeout=60, trust_env=False) as http:
            self._answers.append(http.post(url, json=arguments))

    @property
    def waits(self) -> bool:
        return not self._answers

    def answer(self) -> Any:
        self._thread.join(60)
        assert self._answers[0].status_code == 200, self._answers[0].text
        return self._answers[0].json()


@pytest.fixture
def moody(platform: Platform) -> dict[str, Any]:
    return platform.up().deploy("moody", MOODY)


def shown(platform: Platform) -> dict[str, Any]:
    """Its record as `bema ls` prints it; what is as usual is left out there."""
    [instance] = [i for i in platform.json("ls")["instances"] if i["address"] == "demo.moody"]
    return {"ready": True, "stalled": False, **instance}


@contextlib.contextmanager
def control(platform: Platform, deployment: str) -> Iterator[Any]:
    """Asks the control API for the deployment; None while nobody answers."""
    with platform.http() as api:

        def ask() -> dict[str, Any] | None:
            with contextlib.suppress(httpx2.TransportError):
                answer = api.get(f"/faas/python/{deployment}")
                return answer.json() if answer.status_code == 200 else None
            return None

        yield ask


def test_one_that_says_it_is_not_ready_is_not_shown_as_ready_and_not_called_until_it_is(
    platform: Platform, moody: dict[str, Any], tmp_path: Path
) -> None:
    rested = tmp_path / "rested"
    Calling(f"{moody['url']}/rest", until=str(rested)).answer()
    told = platform.reach(moody["id"], "starting")
    assert (told["instance"]["state"], told["instance"]["ready"]) == ("serving", False)
    until("its record says so", lambda: not shown(platform)["ready"])
    assert "serving, not ready" in platform.bema("ls").stdout
    refused = platform.bema("call", "demo.moody.rested")
    assert (refused.returncode, "unavailable" in refused.stderr) == (3, True)
    calling = Calling(f"{moody['url']}/rested")
    assert calling.waits

    rested.touch()
    assert calling.answer() is True, "it was called when it was ready again"
    assert platform.reach(moody["id"], "ready")["restarts"] == 0
    assert platform.json("call", "demo.moody.rested") is True


def test_a_loop_that_stands_still_is_marked_though_the_orchestrator_is_killed_until_it_turns(
    platform: Platform, moody: dict[str, Any], tmp_path: Path
) -> None:
    done = tmp_path / "done"
    blocking = Calling(f"{moody['url']}/block", until=str(done))
    with control(platform, moody["id"]) as ask:
        until("it is marked", lambda: (told := ask()) and told["instance"]["stalled"], 20)
        assert ask()["state"] == "ready", "stalled is no state"
        assert shown(platform)["stalled"]
        assert "ready, stalled" in platform.bema("ls").stdout

        old = platform.system("orchestrator")
        os.kill(old, signal.SIGKILL)
        until("the orchestrator answers again", ask)
        assert platform.system("orchestrator") != old
        assert ask()["instance"]["stalled"]
        assert shown(platform)["stalled"]
        later = Calling(f"{moody['url']}/rest", until="")
        assert later.waits and blocking.waits

        done.touch()
        assert (blocking.answer(), later.answer()) == ("whole", None)
        until("the mark is gone", lambda: not ask()["instance"]["stalled"])
        assert not shown(platform)["stalled"]
        assert ask()["restarts"] == 0

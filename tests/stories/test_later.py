"""Idempotent endpoints of what is deployed, called later: the platform keeps the calls, and whoever runs next makes them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.stories.harness import Platform, until

pytestmark = pytest.mark.slow

POST = """
import asyncio
import os
import sys
from pathlib import Path

from bema import endpoint, service

DID = Path({did!r})
GO = Path({go!r})


@service(name="post", namespace="demo")
class Post:
    @endpoint(idempotent=True)
    async def send(self, number: int) -> str:
        with DID.open("a") as did:
            did.write(f"{{number}} {{os.getpid()}}\\n")
        while not GO.exists():
            await asyncio.sleep(0.01)
        return f"sent {{number}}"

    @endpoint(idempotent=True)
    async def jobs(self) -> bool:
        return "bema.jobs" in sys.modules
"""


class Posted:
    """The service behind the gateway; it sends when it is told to `go`."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self._did, self._go = folder / "did", folder / "go"
        made = platform.deploy("post", POST.format(did=str(self._did), go=str(self._go)))
        self.platform = platform
        self.id: str = made["id"]
        self.pid: int = made["instance"]["pid"]

    @property
    def did(self) -> list[tuple[int, int]]:
        """The numbers that were to be sent, each with the process that was to."""
        lines = self._did.read_text().splitlines() if self._did.exists() else []
        return [(int(number), int(pid)) for number, _, pid in (line.partition(" ") for line in lines)]

    @property
    def url(self) -> str:
        return f"{self.platform.gateway}/gateway/{self.id}"

    def go(self) -> None:
        self._go.touch()


@pytest.fixture
def post(platform: Platform) -> Posted:
    return Posted(platform.up(), platform.shared)


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=60, trust_env=False) as client:
        yield client


def accepted(http: httpx2.Client, post: Posted, number: int) -> str:
    """The address of a call that was accepted, on whichever gateway answers."""
    answer = http.post(f"{post.url}/send", json={"number": number}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    path: str = answer.headers["location"]
    return path


def result(http: httpx2.Client, post: Posted, path: str) -> object:
    answer = http.get(f"{post.platform.gateway}{path}/result", headers={"Prefer": "wait=50"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_call_is_kept_with_the_first_that_asks_and_made_by_the_next_instance(
    post: Posted, http: httpx2.Client
) -> None:
    assert http.post(f"{post.url}/jobs").json() is False, "nobody has asked yet"
    with pytest.raises(StopIteration):
        post.platform.system("jobs")
    path = accepted(http, post, 7)
    until("the first instance is at it", lambda: [number for number, _ in post.did] == [7], 20)
    os.kill(post.pid, signal.SIGKILL)
    until("the next is at it", lambda: [number for number, _ in post.did] == [7, 7], 40)
    post.go()
    assert result(http, post, path) == "sent 7"
    assert len({pid for _, pid in post.did}) == 2


def test_a_call_outlives_the_platform(post: Posted, http: httpx2.Client) -> None:
    path = accepted(http, post, 8)
    until("the instance is at it", lambda: len(post.did) == 1, 20)
    os.kill(post.platform.pid, signal.SIGKILL)
    post.platform.end()
    post.go()
    post.platform.up()
    post.platform.reach(post.id, "ready")
    assert result(http, post, path) == "sent 8"
    assert [number for number, _ in post.did] == [8, 8]

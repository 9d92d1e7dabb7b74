"""Durable calls over HTTP on a platform that is up: accepted by one process of a service, and finished by the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.stories.harness import Platform, until

pytestmark = pytest.mark.slow

SHOP = """
import asyncio
from pathlib import Path

from bema import Call, endpoint, service

DID = Path({did!r})
GO = Path({go!r})


def note(what: str) -> None:
    with DID.open("a") as did:
        did.write(what + "\\n")


async def charge(number: int) -> str:
    note(f"charge {{number}}")
    return f"receipt {{number}}"


async def ship(receipt: str) -> str:
    note(f"ship {{receipt}}")
    while not GO.exists():
        await asyncio.sleep(0.01)
    return f"{{receipt}}, shipped"


@service(name="shop", namespace="demo")
class Shop:
    @endpoint(durable=True)
    async def order(self, number: int, call: Call) -> str:
        receipt = await call.step(charge, number)
        return await call.step(ship, receipt)
"""


class Deployed:
    """A shop behind the gateway; it ships when it is told to `go`."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self._did, self._go = folder / "did", folder / "go"
        self.file = folder / "shop.py"
        self.file.write_text(SHOP.format(did=str(self._did), go=str(self._go)))
        made = platform.deploy("shop", self.file.read_text())
        self.pid = made["instance"]["pid"]
        self.url: str = made["url"]
        self._root: str = self.url.partition("/gateway/")[0]

    @property
    def did(self) -> list[str]:
        return self._did.read_text().splitlines() if self._did.exists() else []

    def go(self) -> None:
        self._go.touch()

    def at(self, path: str) -> str:
        return self._root + path


@pytest.fixture
def shop(platform: Platform) -> Deployed:
    return Deployed(platform.up(), platform.shared)


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=60, trust_env=False) as client:
        yield client


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    event: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name:
            event[name] = json.loads(value) if name == "data" else value
        elif event:
            yield event
            event = {}


def test_a_call_that_was_accepted_is_finished_by_the_next_process(
    platform: Platform, shop: Deployed, http: httpx2.Client
) -> None:
    key = {"Prefer": "respond-async", "Idempotency-Key": '"order 7"'}
    accepted = http.post(f"{shop.url}/order", json={"number": 7}, headers=key)
    assert accepted.status_code == 202
    where = shop.at(accepted.headers["location"])
    until("its second step runs", lambda: "ship receipt 7" in shop.did, 20)
    told: list[dict[str, Any]] = []
    with http.stream("GET", f"{where}/events") as answer:
        for event in events(answer.iter_lines()):
            told.append(event)
            if event["event"] == "step":
                break
    os.kill(shop.pid, signal.SIGKILL)
    again = http.post(f"{shop.url}/order", json={"number": 7}, headers=key)
    assert again.headers["location"] == accepted.headers["location"]
    assert http.get(f"{where}/result").status_code == 202
    shop.go()
    result = http.get(f"{where}/result", headers={"Prefer": "wait=50"})
    assert (result.status_code, result.json()) == (200, "receipt 7, shipped")
    with http.stream("GET", f"{where}/events", headers={"Last-Event-ID": told[-1]["id"]}) as answer:
        told += events(answer.iter_lines())
    assert [event["data"]["what"] for event in told if event["event"] == "step"] == ["step 1 charge", "step 2 ship"]
    assert (told[-2]["data"]["state"], told[-1]["event"]) == ("done", "end")
    replayed = platform.bema("replay", where.rpartition("/")[2], str(shop.file))
    assert (replayed.returncode, replayed.stdout.splitlines()[-1]) == (0, "done  'receipt 7, shipped'"), replayed.stderr
    assert shop.did == ["charge 7", "ship receipt 7", "ship receipt 7"]


def test_who_waits_gets_the_answer_from_the_next_process(shop: Deployed) -> None:
    command = ["curl", "-sS", "-m", "60", "-d", '{"number": 8}', f"{shop.url}/order"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as curl:
        until("its second step runs", lambda: "ship receipt 8" in shop.did, 20)
        os.kill(shop.pid, signal.SIGKILL)
        until("the next process runs it", lambda: shop.did.count("ship receipt 8") == 2, 40)
        shop.go()
        out, said = curl.communicate(timeout=60)
    assert json.loads(out) == "receipt 8, shipped", said
    assert shop.did.count("charge 8") == 1


def test_who_waits_and_who_follows_notice_nothing_of_an_owner_that_is_killed(
    platform: Platform, shop: Deployed, http: httpx2.Client
) -> None:
    accepted = http.post(f"{shop.url}/order", json={"number": 9}, headers={"Prefer": "respond-async"})
    where = shop.at(accepted.headers["location"])
    until("its second step runs", lambda: "ship receipt 9" in shop.did, 20)
    command = ["curl", "-sS", "-m", "60", "-H", "Prefer: wait=50", f"{where}/result"]
    told: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as curl:
        with http.stream("GET", f"{where}/events") as answer:
            following = events(answer.iter_lines())
            while not told or told[-1]["event"] != "step":
                told.append(next(following))
            os.kill(platform.system("jobs"), signal.SIGKILL)
            until("another run of the step", lambda: shop.did.count("ship receipt 9") == 2, 40)
            shop.go()
            told += following
        out, said = curl.communicate(timeout=60)
    assert json.loads(out) == "receipt 9, shipped", said
    assert [event["data"]["what"] for event in told if event["event"] == "step"] == ["step 1 charge", "step 2 ship"]
    assert (told[-2]["data"]["state"], told[-1]["event"]) == ("done", "end")


def test_a_platform_that_stops_does_not_wait_for_who_follows(
    platform: Platform, shop: Deployed, http: httpx2.Client
) -> None:
    accepted = http.post(f"{shop.url}/order", json={"number": 5}, headers={"Prefer": "respond-async"})
    where = shop.at(accepted.headers["location"])
    with http.stream("GET", f"{where}/events") as answer:
        following = events(answer.iter_lines())
        assert next(following)["event"] in ("state", "step")
        began = time.monotonic()
        assert platform.stop() in (0, 1)
        assert time.monotonic() - began < 20

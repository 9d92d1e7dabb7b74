"""One function deployed again and again under load; exit 1 when a request fails, or when a version that went left something.

`python3 dev.py soak redeploys --redeploys 1000`. Every tenth version fails to start, which must change nothing; every seventh is
left again by a rollback. The requests come at a fixed rate, whether those before them were answered or not.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2

from bench.soak.deploys import read, steady
from tests.stories.harness import Platform, until

RATE = 50  # requests in a second
PATIENCE = 120.0

SCRIPT = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"NUMBER"})
"""


class Load:
    """Requests at a fixed rate until it is left; `failures` are answers by what was wrong with them."""

    def __init__(self, url: str) -> None:
        self.asked = 0
        self.failures: Counter[str] = Counter()
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    async def _ask(self) -> None:
        limits = httpx2.Limits(max_connections=200)
        async with httpx2.AsyncClient(timeout=PATIENCE, trust_env=False, limits=limits) as http:
            begun = time.monotonic()
            async with asyncio.TaskGroup() as group:
                while not self._over.is_set():
                    group.create_task(self._one(http))
                    self.asked += 1
                    await asyncio.sleep(max(0.0, begun + self.asked / RATE - time.monotonic()))

    async def _one(self, http: httpx2.AsyncClient) -> None:
        try:
            answer = await http.get(self._url)
        except httpx2.HTTPError as error:
            self.failures[repr(error)] += 1
        else:
            if answer.status_code != 200 or not answer.text.isdecimal():
                self.failures[f"{answer.status_code} {answer.text[:100]}"] += 1


class Function:
    """The function that is deployed, and what it should answer now."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        made = platform.deploy("redeployed", SCRIPT.replace("NUMBER", "0"))
        self.id, self.url = made["id"], made["url"]
        self.answers = self._before = 0

    def redeploy(self, number: int) -> None:
        broken = number % 10 == 0
        code = "raise SystemExit(3)\n" if broken else SCRIPT.replace("NUMBER", str(number))
        with self._platform.http() as api:
            asked = api.put(f"/faas/python/{self.id}", json={"source": {"type": "inline", "code": code}})
            assert asked.status_code == 202, asked.text
        label = str(asked.json()["latest"]["version"])
        info = self._ended(label)
        assert (info["version"] != label) is broken, info
        if not broken:
            self._before, self.answers = self.answers, number
        if number % 7 == 0 and not broken:
            self._undo()
        with httpx2.Client(timeout=PATIENCE, trust_env=False) as http:
            until("it answers", lambda: http.get(self.url).text == str(self.answers), PATIENCE)

    def _undo(self) -> None:
        with self._platform.http() as api:
            asked = api.post(f"/faas/python/{self.id}/rollback", json={})
            assert asked.status_code == 202, asked.text
        label = str(asked.json()["latest"]["version"])
        assert self._ended(label)["version"] == label
        self.answers = self._before

    def _ended(self, label: str) -> dict[str, Any]:
        """The deployment once that version has come up, or failed."""
        with self._platform.http() as api:

            def ended() -> dict[str, Any] | None:
                info: dict[str, Any] = api.get(f"/faas/python/{self.id}").json()
                latest = info["latest"]
                rising = latest is not None and latest["version"] == label and latest["error"] is None
                return None if rising or info["state"] != "ready" else info

            return until(f"{label} came up or failed", ended, PATIENCE)

    def alone(self) -> bool:
        """Whether the version that serves is the only one with an instance."""
        with self._platform.http() as api:
            return int(api.get("/status").json()["orchestrator"]["instances"]) == 1


def soak(platform: Platform, redeploys: int) -> bool:
    function = Function(platform)
    with Load(function.url) as load:
        begun, warm = time.monotonic(), min(10, redeploys // 2)
        for number in range(1, redeploys + 1):
            function.redeploy(number)
            if number == warm:
                until("older versions went", function.alone, PATIENCE)
                early = read(platform)
            if number % max(1, redeploys // 10) == 0:
                print(f"{time.monotonic() - begun:7.1f} s  {number:5d}  {read(platform)}", flush=True)
        until("older versions went", function.alone, PATIENCE)
    print(f"{redeploys:,} redeploys, {load.asked:,} requests, {load.failures.total():,} failed")
    for what, count in load.failures.most_common(10):
        print(f"  {count} x {what}")
    # ten versions are kept, with their files: they are no leak
    kept = early._replace(files=early.files + 3 * 10)
    return steady(platform, kept) and not load.failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py soak redeploys", description=__doc__)
    parser.add_argument("--redeploys", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bema-soak-") as folder:
        platform = Platform(Path(folder) / "state")
        try:
            fine = soak(platform.up(), arguments.redeploys)
            fine = platform.stop() == 0 and fine
        finally:
            platform.end()
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())

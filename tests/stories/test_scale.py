"""From zero and back: a function sleeps when nobody uses it, and who asks wakes as many instances as are needed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.stories.harness import Platform, until

pytestmark = pytest.mark.slow

CONFIGURE = """
import asyncio, json, sys
import msgspec
from bema.core.access import LOCAL_ADMIN
from bema.deploy.model.function import FunctionSettings
from bema.deploy.orchestrator.service import Orchestrator
from bema.runtime.distributed import DistributedRuntime

async def main():
    settings = msgspec.json.decode(sys.argv[2], type=FunctionSettings)
    async with DistributedRuntime() as runtime:
        await runtime.client(Orchestrator, wait=20.0).configure(sys.argv[1], settings, LOCAL_ADMIN)

asyncio.run(main())
"""

SLOW = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""


def configure(platform: Platform, id: str, settings: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURE, id, settings],
        env=platform.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def restarts(platform: Platform, id: str) -> int:
    with platform.http() as api:
        return int(api.get(f"/faas/python/{id}").json()["restarts"])


def at_once(url: str, count: int) -> list[str]:
    async def story() -> list[str]:
        async with httpx2.AsyncClient(
            timeout=120, trust_env=False, limits=httpx2.Limits(max_connections=count)
        ) as client:
            answers = await asyncio.gather(*(client.get(url) for _ in range(count)))
        assert {answer.status_code for answer in answers} == {200}, [a.text for a in answers if a.status_code != 200]
        return [answer.text for answer in answers]

    return asyncio.run(story())


def test_a_burst_at_a_sleeping_function_starts_as_many_as_its_concurrency_asks_for(running: Platform):
    id = running.deploy("burst", SLOW)["id"]
    configure(running, id, '{"idle_after": 0.2, "concurrency": 10, "max_instances": 8}')
    running.reach(id, "idle")
    before = restarts(running, id)
    answers = at_once(f"{running.gateway}/gateway/{id}", 40)
    assert len(answers) == 40
    assert restarts(running, id) - before == 4
    assert len(set(answers)) <= 4
    running.reach(id, "idle")


def held(pid: int) -> tuple[int, int]:
    """Descriptors and threads of a process."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def zombies(keeper: int) -> list[str]:
    """Children of the keeper that ended and were not reaped."""
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    return [pid for pid in children if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"]


def files(platform: Platform) -> list[str]:
    """What lies in the state folder; the store's own files come and go by themselves."""
    found = (path for path in platform.state.rglob("*") if "logs" not in path.parts and ".sqlite" not in path.name)
    return sorted(str(path.relative_to(platform.state)) for path in found)


@pytest.mark.timeout(1200)
def test_a_hundred_sleeps_and_wakes_leave_nothing_behind(platform: Platform, script: Callable[[str], str]):
    platform.up()
    id = platform.deploy("sleeper", script("awake"))["id"]
    configure(platform, id, '{"idle_after": 0.2}')
    keeper, parts = platform.pid, [platform.system("orchestrator"), platform.system("gateway")]

    def cycles(count: int) -> set[str]:
        said = set()
        for _ in range(count):
            platform.reach(id, "idle")
            answer = httpx2.get(f"{platform.gateway}/gateway/{id}", timeout=120, trust_env=False)
            assert answer.status_code == 200, answer.text
            said.add(answer.text)
        platform.reach(id, "idle")
        return said

    cycles(5)
    before = {pid: held(pid) for pid in (keeper, *parts)}
    lies = files(platform)
    assert len(cycles(100)) == 100, "each answer was another process's"

    def given_back() -> bool | None:
        now = {pid: held(pid) for pid in before}
        return all(now[pid][n] <= before[pid][n] for pid in before for n in (0, 1)) or None

    until("descriptors and threads are given back", given_back, 60.0)
    assert zombies(keeper) == []
    assert files(platform) == lies
    assert [platform.system("orchestrator"), platform.system("gateway")] == parts

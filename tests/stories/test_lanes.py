"""One class, deployed twice, run by hand and being written: callers get one of them, and are told which; its log has their calls."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from tests.stories.harness import Platform, command, until

pytestmark = pytest.mark.slow

TEA = """
from bema import endpoint, service

@service(name="tea", namespace="shop")
class Tea:
    @endpoint()
    async def version(self) -> int:
        return VERSION

    @endpoint()
    async def spill(self) -> None:
        1 // 0
"""


@contextmanager
def started(platform: Platform, how: str, version: int) -> Iterator[None]:
    """`bema run` or `bema dev` of a file beside the platform."""
    file = platform.state.parent / f"tea_{version}.py"
    file.write_text(TEA.replace("VERSION", str(version)))
    with (platform.state.parent / "terminal.txt").open("w") as terminal:
        process = subprocess.Popen([*command(), how, str(file)], env=platform.env, stderr=terminal)
        try:
            until("it is ready", lambda: "is ready" in (platform.state.parent / "terminal.txt").read_text(), 20.0)
            yield
        finally:
            process.terminate()
            process.wait(20)


def versions(platform: Platform, lane: str = "") -> set[int]:
    """What five callers get who ask for that lane."""
    before = dict(platform.env)
    if lane:
        platform.env["BEMA_LANE"] = lane
    try:
        return {json.loads(platform.bema("call", "shop.tea.version").stdout) for _ in range(5)}
    finally:
        platform.env = before


def test_what_is_deployed_run_and_written_of_one_class_is_told_apart(platform):
    platform.up().deploy("tea-two", TEA.replace("VERSION", "2"))
    assert versions(platform) == {2}
    with started(platform, "dev", 3), started(platform, "run", 4):
        assert versions(platform) == {2}
        platform.deploy("tea", TEA.replace("VERSION", "1"))  # it bears the name of the component
        assert versions(platform) == {1}
        assert [versions(platform, lane) for lane in ("deployment/tea-two", "dev", "hand")] == [{2}, {3}, {4}]
        listed = [i for i in platform.json("ls")["instances"] if i["address"] == "shop.tea"]
        assert sorted(i["lane"] for i in listed) == ["deployment/tea", "deployment/tea-two", "dev", "hand"]
        shown = platform.bema("ls").stdout
        assert all(f"shop.tea ({lane})" in shown for lane in ("deployment/tea", "deployment/tea-two", "dev"))


def test_the_log_of_a_deployed_service_has_a_line_per_call_with_the_trace_of_its_answer(platform):
    deployed = platform.up().deploy("tea", TEA.replace("VERSION", "1"))
    url = f"{platform.gateway}/gateway/{deployed['id']}"
    trace = "0af7651916cd43dd8448eb211c80319c"
    with httpx2.Client(timeout=20, trust_env=False) as http:
        fine = http.post(f"{url}/version", json={}, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        assert fine.json() == 1
        spilt = http.post(f"{url}/spill", json={})
        assert spilt.status_code >= 500

    def lines() -> list[dict[str, Any]] | None:
        said = platform.bema("logs", "tea", "--json").stdout
        found = [json.loads(line) for line in said.splitlines() if "bema.calls" in line]
        return found if len(found) >= 2 else None

    first, second = until("both calls are in the log", lines)[:2]
    assert "shop.tea.version" in str(first) and " ms ok" in str(first) and trace in str(first)
    assert "shop.tea.spill" in str(second) and "remote_error" in str(second)
    assert spilt.json()["error"]["trace_id"] in str(second)
    assert "warning" in str(second).lower() and "info" in str(first).lower()

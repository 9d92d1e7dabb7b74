"""Scripts deployed, asked and removed over and over on a real platform; exit 1 when anything of them stays.

`python3 dev.py soak deploys --cycles 100`. Watched are the platform's three processes: descriptors, threads and memory;
and what a removed script may leave: processes, zombies, files.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import httpx2

from tests.stories.harness import Platform, processes_of, until

MIB = 1024 * 1024
SLACK = 24 * MIB
SPARE = 4  # descriptors of connections that are kept for a moment

SCRIPT = """
import subprocess
subprocess.Popen(["sleep", "600"], start_new_session=True)  # it must end with its instance

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
"""


class Reading(NamedTuple):
    descriptors: int
    threads: int
    memory: int
    processes: int
    files: int


def read(platform: Platform) -> Reading:
    pids = [platform.system(name) for name in ("keeper", "orchestrator", "gateway")]
    kept = [p for p in platform.state.rglob("*") if not p.is_relative_to(platform.state / "logs" / "bema")]
    return Reading(
        sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
        sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids),
        sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * os.sysconf("SC_PAGE_SIZE"),
        len(processes_of(platform.state)) + len(_zombies(platform.pid)),
        len(kept),
    )


def _zombies(parent: int) -> list[str]:
    """Children of a process that have ended and were not reaped."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) == parent:
            found.append(stat.parent.name)
    return found


def cycle(platform: Platform, http: httpx2.Client, number: int) -> None:

    made = platform.deploy(f"soaked-{number % 7}", SCRIPT)
    assert http.get(made["url"]).text == "ok"
    with platform.http() as api:
        assert api.delete(f"/faas/python/{made['id']}").status_code == 204
    until("it is gone", lambda: not (platform.state / "homes" / made["id"]).exists(), 20)
    assert http.get(made["url"]).status_code == 404


def soak(platform: Platform, cycles: int) -> bool:
    warm = max(3, cycles // 10)
    with httpx2.Client(timeout=30, trust_env=False) as http:
        for number in range(warm):
            cycle(platform, http, number)
        early, begun = read(platform), time.monotonic()
        for number in range(cycles):
            cycle(platform, http, number)
            if number % max(1, cycles // 10) == 0:
                print(f"{time.monotonic() - begun:7.1f} s  {number:5d}  {read(platform)}", flush=True)
    return steady(platform, early)


def steady(platform: Platform, early: Reading) -> bool:
    """Whether everything is as it was, once what is kept for seconds has gone."""

    def same() -> bool:
        late = read(platform)
        return (
            late.descriptors <= early.descriptors + SPARE
            and late.threads <= early.threads + 2
            and late.processes <= early.processes
            and late.files <= early.files
            and late.memory < early.memory + SLACK
        )

    end = time.monotonic() + 10
    while not (fine := same()) and time.monotonic() < end:
        time.sleep(0.2)
    print(f"{'ok' if fine else 'GREW'}: {early} early, {read(platform)} late")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py soak deploys", description=__doc__)
    parser.add_argument("--cycles", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bema-soak-") as folder:
        platform = Platform(Path(folder) / "state")
        try:
            fine = soak(platform.up(), arguments.cycles)
            fine = platform.stop() == 0 and fine
        finally:
            platform.end()
    print(f"{arguments.cycles} scripts deployed, asked and removed")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())

"""Calls and streams to a service for as long as is asked for; exit 1 when one fails, or when memory or descriptors grow.

`python3 dev.py soak calls --seconds 600`. The service is a process of its own, the client this one; both are watched.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import bema
from bema import endpoint, service

MIB = 1024 * 1024
SLACK = 16 * MIB  # what an allocator may keep without a leak


@service(name="soaked", namespace="bench")
class Soaked:
    @endpoint(idempotent=True)
    async def echo(self, text: str) -> str:
        return text

    @endpoint()
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number


class Reading(NamedTuple):
    memory: int  # bytes resident
    descriptors: int


def read(pid: int) -> Reading:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Reading(pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path(f"/proc/{pid}/fd").iterdir())))


async def work(worker: Soaked, until: float) -> int:
    """Calls, streams read to the end, and streams left early, until the time is over; how many."""
    done = 0
    while time.monotonic() < until:
        text = f"{done}" * 50
        assert await worker.echo(text) == text
        assert [number async for number in worker.count(20)] == list(range(20))
        stream = worker.count(1_000_000)
        async for number in stream:
            if number == 10:
                break
        done += 3
    return done


async def soak(pids: dict[str, int], seconds: float, clients: int) -> bool:
    begun = time.monotonic()
    readings: list[dict[str, Reading]] = []
    async with bema.connect() as runtime:
        worker = runtime.client(Soaked, wait=10)
        workers = [asyncio.create_task(work(worker, begun + seconds)) for _ in range(clients)]
        while not all(task.done() for task in workers):
            await asyncio.wait(workers, timeout=max(seconds / 20, 0.5))
            readings.append({name: read(pid) for name, pid in pids.items()})
            shown = "  ".join(f"{n} {r.memory / MIB:.1f} MiB {r.descriptors} fds" for n, r in readings[-1].items())
            print(f"{time.monotonic() - begun:7.1f} s  {shown}", flush=True)
        print(f"{sum(task.result() for task in workers):,} calls")
    verdicts = [steady(name, [reading[name] for reading in readings]) for name in pids]
    return all(verdicts)


def steady(name: str, readings: list[Reading]) -> bool:
    """Whether the last quarter holds no more than the second one did: the first is for warming up."""
    quarter = max(len(readings) // 4, 1)
    early, late = readings[quarter : 2 * quarter] or readings, readings[-quarter - 1 : -1] or readings
    growth = min(r.memory for r in late) - max(r.memory for r in early)
    descriptors = min(r.descriptors for r in late) - max(r.descriptors for r in early)
    fine = growth < SLACK and descriptors <= 0
    print(f"{'ok' if fine else 'GREW':5} {name}: {growth / MIB:+.1f} MiB, {descriptors:+d} descriptors")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py soak calls", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bema-soak-") as state:
        os.environ["BEMA_STATE_DIR"] = state
        server = subprocess.Popen([sys.executable, "-m", "bench.soak.calls", "serve"], stderr=subprocess.DEVNULL)
        try:
            fine = asyncio.run(
                soak({"client": os.getpid(), "server": server.pid}, arguments.seconds, arguments.clients)
            )
        finally:
            server.terminate()
            code = server.wait(30)
        print(f"the server drained and ended with {code}")
        return 0 if fine and code == 0 else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(bema.serve(Soaked))
    else:
        sys.exit(main())

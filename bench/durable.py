"""Durable calls: steps per second through the RPC, against SQLite's own commits, in one run.

    python3 dev.py bench durable [--rounds N] [--seconds S]

A worker and its callers are two processes. `bare` is a loop that commits one row at a time to SQLite with the same sync. Exit 1
where 32 callers make fewer than `STEPS` steps a second, or one caller less than `SHARE` of what `bare` commits.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bema
from bema import Call, endpoint, service
from bench.harness import median

STEPS = 20_000
SHARE = 0.4
EACH = 50  # steps of one call


async def add(number: int) -> int:
    return number + 1


@service(name="stepping", namespace="bench")
class Stepping:
    @endpoint(durable=True)
    async def steps(self, count: int, call: Call) -> int:
        number = 0
        for _ in range(count):
            number = await call.step(add, number)
        return number


def bare(folder: Path, seconds: float) -> float:
    """Commits per second of a plain loop."""
    db = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE IF NOT EXISTS steps (key TEXT PRIMARY KEY, value BLOB)")
    count, until, began = 0, time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < until:
        db.execute("INSERT INTO steps VALUES (?, ?)", (f"{time.monotonic_ns()}-{count}", b"x" * 60))
        count += 1
    took = time.monotonic() - began
    db.close()
    return count / took


async def stepped(callers: int, seconds: float) -> float:
    """Steps per second of so many callers."""
    async with bema.connect() as runtime:
        stepping = runtime.client(Stepping, wait=10)
        await stepping.steps(1)  # type: ignore[call-arg]
        until, began, made = time.monotonic() + seconds, time.monotonic(), 0

        async def calling() -> None:
            nonlocal made
            while time.monotonic() < until:
                assert await stepping.steps(EACH) == EACH  # type: ignore[call-arg]
                made += EACH

        await asyncio.gather(*(calling() for _ in range(callers)))
        return made / (time.monotonic() - began)


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py bench durable", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()
    figures: dict[str, list[float]] = {"bare": [], "1": [], "32": []}
    with tempfile.TemporaryDirectory(prefix="bema-bench-") as state:
        os.environ["BEMA_STATE_DIR"] = state
        worker = subprocess.Popen([sys.executable, "-m", "bench.durable", "serve"], stderr=subprocess.DEVNULL)
        try:
            for _ in range(asked.rounds):
                figures["bare"].append(bare(Path(state), asked.seconds / 2))
                for callers in (1, 32):
                    figures[str(callers)].append(asyncio.run(stepped(callers, asked.seconds)))
        finally:
            worker.terminate()
            worker.wait(30)
    commits, one, many = (median(figures[name]) for name in ("bare", "1", "32"))
    print(f"bare SQLite commits      {commits:9,.0f} /s")
    print(f"steps, 1 caller          {one:9,.0f} /s   {one / commits:.2f} of bare (at least {SHARE})")
    print(f"steps, 32 callers        {many:9,.0f} /s   (at least {STEPS:,})")
    return 0 if many >= STEPS and one >= SHARE * commits else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(bema.serve(Stepping))
    else:
        sys.exit(main())

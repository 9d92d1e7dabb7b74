"""Durable calls: steps per second through the RPC, beside SQLite's own commits and beside peers, in one run.

    python3 dev.py bench durable [--rounds N] [--seconds S] [--disk FOLDER] [--memory FOLDER] [--sleepers N] [--done N]

A worker and its callers are two processes. What costs processor time is measured in a folder of memory, where a sync costs nothing;
against `bare`, a loop that commits one row at a time to SQLite with the same sync, it is measured on the disk too. The peers are
DBOS on SQLite and on PostgreSQL, and FastMCP's tasks in memory; they are installed under `.bench/`, and left out where they cannot
be. Exit 1 where a row misses what is wanted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bema
from bema.core.clock import SystemClock
from bench.durable.growth import measured
from bench.durable.worker import EACH, Stepping
from bench.harness import median
from bench.rpc.installing import python

STEPS = 20_000  # a second, of 32 callers
SHARE = 0.4  # of a bare loop's commits, for one caller
PEERS = 4.0  # times the best peer
PICKUP = 0.005  # seconds from the enqueueing to the start, of 99 in 100
SLEEPER = 1024  # bytes
PAGE, START = 0.1, 2.0  # seconds, with a million ended calls
PROGRAMS = {
    "DBOS on SQLite": ("dbos_steps.py",),
    "DBOS on PostgreSQL": ("dbos_steps.py", "postgres"),
    "FastMCP tasks in memory": ("fastmcp_calls.py",),
}


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
        stepping = runtime.client(Stepping, wait=20)
        await stepping.steps(1)  # type: ignore[call-arg]
        began, made = time.monotonic(), 0

        async def calling() -> None:
            nonlocal made
            while time.monotonic() < began + seconds:
                assert await stepping.steps(EACH) == EACH  # type: ignore[call-arg]
                made += EACH

        await asyncio.gather(*(calling() for _ in range(callers)))
        return made / (time.monotonic() - began)


async def picked_up(seconds: float) -> list[float]:
    """Seconds from sending each call to the start of its first step, of calls one after the other."""
    async with bema.connect() as runtime:
        stepping = runtime.client(Stepping, wait=20)
        until, took = time.monotonic() + seconds, []
        while time.monotonic() < until:
            took.append(await stepping.started(SystemClock().now()) / 1e6)  # type: ignore[call-arg]
        return took


@contextlib.contextmanager
def worker(folder: Path) -> Iterator[None]:
    """A worker whose state lies in the folder, and this process as its caller."""
    os.environ["BEMA_STATE_DIR"] = str(folder)
    process = subprocess.Popen([sys.executable, "-m", "bench.durable.worker"], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def peer(name: str, folder: Path, seconds: float) -> float | None:
    """Steps per second of a peer with 32 callers; None, with its words on stderr, where it does not run here."""
    interpreter = python("durable")
    if interpreter is None:
        return None
    program, *more = PROGRAMS[name]
    with tempfile.TemporaryDirectory(dir=folder) as own:
        command = [str(interpreter), str(Path(__file__).with_name("peers") / program), own, "32", str(seconds), *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120 + seconds, check=False)
    if done.returncode:
        print(f"{name} does not run here: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return float(done.stdout.split()[-1])


class Report:
    """Prints rows, and keeps whether all were met."""

    def __init__(self) -> None:
        self.met = True

    def row(self, what: str, found: str, wanted: str = "", *, met: bool = True) -> None:
        self.met &= met
        print(f"{'' if not wanted else 'met   ' if met else 'MISSED':7}{what:38} {found:>14}  {wanted}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py bench durable", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--disk", default=tempfile.gettempdir())
    parser.add_argument("--memory", default="/dev/shm")
    parser.add_argument("--sleepers", type=int, default=100_000)
    parser.add_argument("--done", type=int, default=1_000_000)
    asked = parser.parse_args()
    figures: dict[str, list[float]] = {}

    def add(name: str, value: float | None) -> None:
        if value is not None:
            figures.setdefault(name, []).append(value)

    with (
        tempfile.TemporaryDirectory(prefix="bema-bench-", dir=asked.disk) as disk,
        tempfile.TemporaryDirectory(prefix="bema-bench-", dir=asked.memory) as memory,
    ):
        took: list[float] = []
        for _ in range(asked.rounds):
            add("bare", bare(Path(disk), asked.seconds / 2))
            with worker(Path(disk)):
                add("1 on disk", asyncio.run(stepped(1, asked.seconds)))
                add("32 on disk", asyncio.run(stepped(32, asked.seconds)))
            with worker(Path(memory)):
                add("32", asyncio.run(stepped(32, asked.seconds)))
                took += asyncio.run(picked_up(asked.seconds / 2))
            for name in PROGRAMS:
                add(name, peer(name, Path(memory), asked.seconds))
        growth = measured(Path(memory), asked.sleepers, asked.done)
    middle = {name: median(values) for name, values in figures.items()}
    report = Report()
    report.row("bare SQLite commits, on disk", f"{middle['bare']:,.0f} /s")
    share = middle["1 on disk"] / middle["bare"]
    report.row("1 caller, on disk", f"{share:.2f} of bare", f"at least {SHARE}", met=share >= SHARE)
    report.row("32 callers, on disk", f"{middle['32 on disk'] / middle['bare']:.1f} of bare")
    many = middle["32"]
    report.row("32 callers", f"{many:,.0f} steps/s", f"at least {STEPS:,}", met=many >= STEPS)
    for name in PROGRAMS:
        if name in middle:
            times = many / middle[name]
            report.row(
                name, f"{middle[name]:,.0f} steps/s", f"ours {times:.1f} times, at least {PEERS:g}", met=times >= PEERS
            )
    late = sorted(took)[int(len(took) * 0.99)]
    report.row(
        "sent to started, 99 in 100", f"{late * 1000:.2f} ms", f"at most {PICKUP * 1000:g} ms", met=late <= PICKUP
    )
    size = f"{asked.sleepers:,} sleeping, each"
    report.row(size, f"{growth.sleeping} bytes", f"at most {SLEEPER}", met=growth.sleeping <= SLEEPER)
    report.row("timers and tasks beside them", str(growth.timers), "at most 10", met=growth.timers <= 10)
    report.row(
        f"a page of {asked.done:,} ended", f"{growth.page * 1000:.1f} ms", "at most 100", met=growth.page <= PAGE
    )
    report.row(f"start with {asked.done:,} ended", f"{growth.start:.2f} s", "at most 2", met=growth.start <= START)
    return 0 if report.met else 1


if __name__ == "__main__":
    sys.exit(main())

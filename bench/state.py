"""What a durable commit costs: the state engine beside a bare SQLite loop that commits each write by itself.

Both write distinct keys into a new file on the same file system with the same pragmas (WAL, `synchronous = FULL`), in rounds
that take turns. `python3 dev.py bench state`; exits 1 when 32 callers reach less than `WANTED` times the bare loop.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bema.state.engine import Mutation
from bema.state.sqlite import SqliteEngine
from bench.harness import Verdict, median
from bench.harness import Wanted as Row

CALLERS = (1, 32, 256)
WANTED = 4.5
BARE = "a bare loop"
ROOT = Path(__file__).resolve().parents[1]
_numbers = itertools.count()


class Sample(NamedTuple):
    rate: float  # commits per second
    cpu: float  # microseconds of this process per commit


def bare(folder: Path, seconds: float, value: bytes) -> Sample:
    """One connection, one write per transaction, nothing else."""
    db = sqlite3.connect(folder / f"bare-{next(_numbers)}", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, value BLOB) WITHOUT ROWID")
    done, begun, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO entries VALUES (?, ?, ?)", (f"bench/{done}", done, value))
        db.execute("COMMIT")
        done += 1
    sample = _sample(done, begun, cpu)
    db.close()
    return sample


async def engine(folder: Path, seconds: float, value: bytes, callers: int) -> Sample:
    """Callers that each wait for their commit before they ask for the next one."""
    state = await SqliteEngine.at(folder / f"engine-{next(_numbers)}")
    end = time.perf_counter() + seconds
    done = 0

    async def caller(number: int) -> None:
        nonlocal done
        for count in itertools.count():
            await state.apply((Mutation(f"bench/{number}/{count}", value),))
            done += 1
            if time.perf_counter() > end:
                return

    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller(number) for number in range(callers)))
    sample = _sample(done, begun, cpu)
    assert state.revision == done, "a commit was not counted"
    await state.close()
    return sample


def _sample(done: int, begun: float, cpu: float) -> Sample:
    return Sample(done / (time.perf_counter() - begun), (time.process_time() - cpu) / done * 1e6)


def name_of(callers: int) -> str:
    return f"{callers} caller{'s' if callers > 1 else ''}"


def measure(folder: Path, rounds: int, seconds: float, value: bytes) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {BARE: [], **{name_of(callers): [] for callers in CALLERS}}
    for number in range(rounds + 1):
        samples = {BARE: bare(folder, seconds, value)}
        for callers in CALLERS:
            samples[name_of(callers)] = asyncio.run(engine(folder, seconds, value, callers))
        for name, sample in samples.items():
            if number:  # the first round fills caches
                found[name].append(sample)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py bench state", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one measurement")
    parser.add_argument("--bytes", type=int, default=200, help="size of a value")
    parser.add_argument("--folder", type=Path, default=ROOT, help="on whose file system to write")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix=".bench-state-") as folder:
        found = measure(Path(folder), chosen.rounds, chosen.seconds, bytes(chosen.bytes))
    rates = {name: median(sample.rate for sample in samples) for name, samples in found.items()}
    print(f"values of {chosen.bytes} bytes, medians of {chosen.rounds} rounds of {chosen.seconds:g} s that take turns")
    for name, samples in found.items():
        cpu = median(sample.cpu for sample in samples)
        print(f"{name:12} {rates[name]:10,.0f} commits/s {cpu:8.1f} us of CPU each {rates[name] / rates[BARE]:7.2f} x")
    wanted = Row(f"commits of {name_of(32)}", "engine", BARE, WANTED)
    verdict = Verdict(wanted, rates[name_of(32)] / rates[BARE])
    print(verdict)
    return 0 if verdict.met else 1


if __name__ == "__main__":
    raise SystemExit(main())

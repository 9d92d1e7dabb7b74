"""Streams that go on: numbered items over many streams while the workers that give them are killed and drained.

    python3 dev.py soak streams [--kills N] [--drains N] [--streams N] [--items N]

Exit 1 when a stream lost or doubled an item, or when a reader waited longer than the budget: the 99th percentile of the time
between the last item of one worker and the first of the next after a kill.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import bema
from bema import Call, endpoint, service

WORKERS = 3
PACE = 0.005  # seconds between two items, in which a reader notices nothing
BUDGET = 0.1


@service(name="numbered", namespace="bench")
class Numbered:
    @endpoint(resumable=True)
    async def count(self, to: int, call: Call) -> AsyncIterator[tuple[int, int]]:
        for number in range(call.resume or 0, to):
            await asyncio.sleep(PACE)
            yield os.getpid(), number


class Outcome(NamedTuple):
    lost: int
    doubled: int
    gaps: list[float]  # seconds without an item, where another worker went on

    @property
    def gap(self) -> float:
        """The 99th percentile; 0 where no stream changed its worker."""
        return sorted(self.gaps)[max(0, int(len(self.gaps) * 0.99) - 1)] if self.gaps else 0.0


async def read(numbered: Numbered, to: int) -> Outcome:
    """One stream to its end."""
    seen, gaps, before, at = list[int](), list[float](), 0, time.monotonic()
    async for pid, number in numbered.count(to):  # type: ignore[call-arg]
        if before not in (0, pid):
            gaps.append(time.monotonic() - at)
        before, at = pid, time.monotonic()
        seen.append(number)
    return Outcome(to - len(set(seen)), len(seen) - len(set(seen)) + (seen != sorted(seen)), gaps)


def start() -> subprocess.Popen[str]:
    worker = subprocess.Popen([sys.executable, "-m", "bench.soak.streams", "serve"], stderr=subprocess.PIPE, text=True)
    assert worker.stderr is not None
    while "is ready" not in worker.stderr.readline():
        if worker.poll() is not None:
            raise SystemExit("a worker did not start")
    return worker


async def disturb(workers: list[subprocess.Popen[str]], ends: Sequence[signal.Signals]) -> None:
    """End a worker after the other, by these signals; each is replaced before the next one ends."""
    for number in ends:
        worker = workers.pop(random.randrange(len(workers)))
        workers.append(await asyncio.to_thread(start))
        worker.send_signal(number)
        await asyncio.to_thread(worker.communicate)


async def soak(workers: list[subprocess.Popen[str]], *, kills: int, drains: int, streams: int, items: int) -> Outcome:
    """Streams of `items` numbers, read again and again until all workers were ended that are to be."""
    ends = [signal.SIGKILL] * kills + [signal.SIGTERM] * drains
    random.shuffle(ends)
    outcomes: list[Outcome] = []
    async with bema.connect() as runtime:
        numbered = runtime.client(Numbered, wait=10)
        disturbing = asyncio.create_task(disturb(workers, ends))

        async def again() -> None:
            while True:
                outcomes.append(await read(numbered, items))
                if disturbing.done():
                    return

        await asyncio.gather(disturbing, *(again() for _ in range(streams)))
    gaps = [gap for outcome in outcomes for gap in outcome.gaps]
    return Outcome(sum(o.lost for o in outcomes), sum(o.doubled for o in outcomes), gaps)


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py soak streams", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--drains", type=int, default=200)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--items", type=int, default=10_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bema-soak-") as state:
        os.environ["BEMA_STATE_DIR"] = state
        workers = [start() for _ in range(WORKERS)]
        try:
            outcome = asyncio.run(soak(workers, **vars(asked)))
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.communicate(timeout=10)
    fine = not outcome.lost and not outcome.doubled and outcome.gap <= BUDGET
    print(f"{asked.kills} kills and {asked.drains} drains of {WORKERS} workers under {asked.streams} streams")
    print(f"{outcome.lost} items lost, {outcome.doubled} doubled, {len(outcome.gaps)} continuations")
    print(f"gap p99 {outcome.gap * 1000:.0f} ms (at most {BUDGET * 1000:.0f})")
    return 0 if fine else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(bema.serve(Numbered))
    else:
        sys.exit(main())

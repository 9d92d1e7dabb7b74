"""Durable calls under a seeded loop: schedules one after the other, each with crashes, failing writes and a clock that is set.

    python3 dev.py soak simulation [--schedules N] [--first SEED] [--processes N]

Exit 1 at the first promise that is broken; its seed shows it again: `--first SEED --schedules 1`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time

from tests.jobs.simulation import Outcome, Violation, simulate

_TOGETHER = 200


def some(first: int, count: int) -> tuple[Outcome, list[str]]:
    """So many schedules from a seed on: the sums of what happened, and the promises that were broken."""
    total, broken = Outcome(0, 0, 0, 0, 0, 0), list[str]()
    for seed in range(first, first + count):
        try:
            total = Outcome(*map(sum, zip(total, simulate(seed), strict=True)))
        except Violation as violation:
            broken.append(str(violation))
    return total, broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py soak simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=time.time_ns() % 10**9)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    began, total, done = time.monotonic(), Outcome(0, 0, 0, 0, 0, 0), 0
    last = asked.first + asked.schedules
    parts = [(first, min(_TOGETHER, last - first)) for first in range(asked.first, last, _TOGETHER)]
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
        for outcome, broken in pool.imap_unordered(_some, parts):
            if broken:
                print("\n".join(broken))
                return 1
            total, done = Outcome(*map(sum, zip(total, outcome, strict=True))), done + _TOGETHER
            if done % 10_000 == 0:
                print(f"{done} schedules", flush=True)
    seconds = time.monotonic() - began
    print(f"{asked.schedules} schedules from seed {asked.first} on, {asked.schedules / seconds:.0f} a second")
    print(
        f"{total.owners} owners, {total.crashes} of them to crash; {total.refusals} writes refused; "
        f"{total.calls} calls, {total.commits} commits, {total.callbacks} callbacks"
    )
    return 0


def _some(part: tuple[int, int]) -> tuple[Outcome, list[str]]:
    return some(*part)


if __name__ == "__main__":
    sys.exit(main())

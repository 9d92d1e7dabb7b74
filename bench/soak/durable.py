"""Durable calls of a process that is killed and whose disk fails, at single system calls, and that is started again.

    python3 dev.py soak durable [--rounds N] [--seed SEED]

A round: killed at a write or a sync, killed or refused one while it recovers, then left alone. Exit 1 where something that was
acknowledged is lost, there twice or changed, or was not synced. It needs strace.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.jobs.faulty import Machine, failing, killed, unsynced

SECONDS = 6  # a process whose disk stays full waits for room


def round_of(strace: str, chance: random.Random, ends: Counter[str]) -> list[str]:
    """One round; what was broken."""
    with tempfile.TemporaryDirectory(prefix="bema-soak-") as folder:
        machine = Machine(strace, Path(folder), calls=chance.choice([1, 3]))
        for fault in (killed(chance), chance.choice([killed, failing])(chance)):
            run = machine.run(fault, seconds=SECONDS)
            ends[{0: "ended", -9: "killed", 3: "ended with its disk"}.get(run.code, "did not start")] += 1
        if machine.run().code != 0:
            return ["it did not recover"]
        # with several, one is told of what is synced while the next is written; and so it is where a write failed
        runs = [run for run in machine.runs if not any("(INJECTED)" in line for line in run.trace)]
        lines = [line for run in runs for line in unsynced(run.trace, run.left)] if machine.calls == 1 else []
        return [*machine.check(), *lines]


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py soak durable", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    asked = parser.parse_args()
    if (strace := shutil.which("strace")) is None:
        print("strace is not installed: apt install strace")
        return 1
    ends, broken = Counter[str](), 0
    for number in range(asked.rounds):
        for wrong in round_of(strace, random.Random(asked.seed + number), ends):
            broken += 1
            print(f"--seed {asked.seed + number} --rounds 1: {wrong}")
    print(
        f"{asked.rounds} rounds from seed {asked.seed} on; {', '.join(f'{n} {end}' for end, n in ends.most_common())}"
    )
    print(f"{broken} promises broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

"""Durable calls of what is deployed, while whoever has a part in them is killed: an instance, the service of calls, orchestrator, keeper.

    python3 dev.py soak deaths [--rounds N] [--calls N] [--seed SEED]

A round: calls are submitted, one of the four is killed at a moment of the seed's, and all results are waited for. Exit 1 where a
call is lost, or where a step gave its handler one number and came to another. The limit `restarts` is out of reach: an instance that dies
once in each second is a crash loop, and its calls would wait for minutes, as they should.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import bema
from bema.core.limits import LIMITS
from tests.stories.harness import Platform

STEPS = 6
WHO = ("instance", "jobs", "orchestrator", "keeper")
SCRIPT = f"""
import asyncio, os, secrets
from pathlib import Path
from bema import Call, Retry, endpoint, service

async def draw(step: int) -> int:
    await asyncio.sleep(0.05)
    return secrets.randbits(50)

@service(name="draws", namespace="soak")
class Draws:
    @endpoint(durable=True)
    async def drawn(self, number: int, call: Call) -> list[int]:
        values = []
        for step in range({STEPS}):
            values.append(await call.step(draw, step, retry=Retry()))
            with Path("LOGFILE").open("a") as log:
                log.write(f"{{os.getpid()}} {{number}} {{step}} {{values[-1]}}\\n")
        return values
"""


def given(log: Path) -> dict[int, dict[int, set[int]]]:
    """By call and step, what handlers were given."""
    found: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for line in log.read_text().splitlines() if log.exists() else []:
        with contextlib.suppress(ValueError):  # a line that a kill cut off
            _, number, step, value = map(int, line.split())
            found[number][step].add(value)
    return found


def kill(who: str, platform: Platform, log: Path) -> None:
    if who == "keeper":
        platform.stop(signal.SIGKILL)
        platform.up()
        return
    # one that is being started again is not there yet
    with contextlib.suppress(ProcessLookupError, StopIteration):
        pid = int(log.read_text().rsplit("\n", 2)[-2].split()[0]) if who == "instance" else platform.system(who)
        os.kill(pid, signal.SIGKILL)


async def results(endpoint: Any, numbers: range) -> dict[int, list[int] | str]:
    async def one(number: int) -> list[int] | str:
        try:
            async with asyncio.timeout(120):
                ref = await endpoint.later(number, key=f"call {number}")
                values: list[int] = await ref.result(100)
                return values
        except Exception as error:  # noqa: BLE001 - whatever it is, the call was lost
            return f"{type(error).__name__}: {error}"

    return dict(zip(numbers, await asyncio.gather(*map(one, numbers)), strict=True))


async def soak(platform: Platform, log: Path, rounds: int, calls: int, chance: random.Random) -> tuple[int, int]:
    """How many calls were lost, and how many steps changed."""
    lost, changed, killed = 0, 0, Counter[str]()
    async with bema.connect() as runtime:
        endpoint: Any = runtime.namespace("soak").component("draws").endpoint("drawn").client(wait=30)
        first = await results(endpoint, range(calls))  # there is an instance, and the service of calls
        for number in range(1, rounds + 1):
            numbers = range(number * calls, (number + 1) * calls)
            asking = asyncio.ensure_future(results(endpoint, numbers))
            await asyncio.sleep(chance.random() * STEPS * 0.06)
            who = chance.choice(WHO)
            killed[who] += 1
            await asyncio.to_thread(kill, who, platform, log)
            first |= await asking
            if some := [f"call {one}: {first[one]}" for one in numbers if isinstance(first[one], str)]:
                print(f"round {number}, {who} killed", *some, sep="\n", flush=True)
        known = given(log)
        for number, found in first.items():
            if isinstance(found, str):
                lost += 1
            else:
                changed += sum(known[number][step] != {value} for step, value in enumerate(found))
    print(f"{rounds} rounds; killed: {', '.join(f'{who} {times}' for who, times in killed.most_common())}")
    return lost, changed


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py soak deaths", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--calls", type=int, default=8)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bema-soak-") as folder:
        platform = Platform(Path(folder, "state"))
        log = platform.shared / "given"
        os.environ["BEMA_STATE_DIR"] = str(platform.state)
        platform.env[LIMITS["restarts"].variable] = "1000"
        platform.up()
        try:
            platform.deploy("draws", SCRIPT.replace("LOGFILE", str(log)))
            lost, changed = asyncio.run(soak(platform, log, asked.rounds, asked.calls, random.Random(asked.seed)))
        finally:
            platform.stop()
    print(f"{(asked.rounds + 1) * asked.calls} calls from seed {asked.seed} on: {lost} lost, {changed} changed")
    return 1 if lost or changed else 0


if __name__ == "__main__":
    sys.exit(main())

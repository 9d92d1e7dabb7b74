"""Large payloads, many in flight, in cycles; exit 1 when one comes back changed or memory grows from cycle to cycle.

`python3 dev.py soak large --flight 96 --cycles 3`
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time

from bema.core.call import Call
from bema.core.spec import EndpointSpec, Parameter, Shape
from bema.runtime.rpc.client import Client
from bench.soak.ends import MIB, ends, flat, memory

ECHO = EndpointSpec("echo", Shape.UNARY, (Parameter("blob", bytes),), bytes)
ROUNDS = 4  # each call of a cycle, one after the other


async def echo(call: Call) -> bytes:
    blob: bytes = call.arguments["blob"]
    return blob


async def one(client: Client, size: int) -> None:
    for _ in range(ROUNDS):
        blob = os.urandom(16) + bytes(size - 16)
        if await client.unary({"blob": blob}, timeout=120) != blob:
            raise ValueError("a payload came back changed")


async def soak(flight: int, cycles: int, size: int) -> bool:
    readings = []
    async with ends(ECHO, echo) as client:
        for cycle in range(cycles):
            began = time.monotonic()
            await asyncio.gather(*(one(client, size) for _ in range(flight)))
            readings.append(memory())
            print(f"cycle {cycle + 1}: {flight * ROUNDS} calls of {size / MIB:g} MiB, {time.monotonic() - began:.1f} s")
    return flat(readings[0], readings[-1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py soak large", description=__doc__)
    parser.add_argument("--flight", type=int, default=96)
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--size", type=int, default=MIB)
    asked = parser.parse_args()
    return 0 if asyncio.run(soak(asked.flight, asked.cycles, asked.size)) else 1


if __name__ == "__main__":
    sys.exit(main())

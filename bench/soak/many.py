"""Many calls at once in one process, each a stream of 11 items; exit 1 when one fails or an item is wrong.

`python3 dev.py soak many --calls 20000`
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator

from bema.core.call import Call
from bema.core.spec import EndpointSpec, Parameter, Shape
from bema.runtime.rpc.client import Client
from bench.soak.ends import ends

ITEMS = 11
COUNT = EndpointSpec("count", Shape.STREAM, (Parameter("first", int), Parameter("everybody", int)), int)


class Crowd:
    """The service: nobody gets a second item before everybody has had the first, so that all calls run at once."""

    def __init__(self) -> None:
        self.here = 0
        self._all = asyncio.Event()

    async def count(self, call: Call) -> AsyncIterator[int]:
        first = call.arguments["first"]
        yield first
        self.here += 1
        if self.here == call.arguments["everybody"]:
            self._all.set()
        await self._all.wait()
        for n in range(1, ITEMS):
            yield first + n


async def one(client: Client, first: int, everybody: int) -> None:
    items = [item async for item in client.stream({"first": first, "everybody": everybody}, timeout=120)]
    if items != list(range(first, first + ITEMS)):
        raise ValueError(f"call {first} got {items}")


async def soak(calls: int) -> int:
    """How many calls failed."""
    began = time.monotonic()
    crowd = Crowd()
    async with ends(COUNT, crowd.count, calls=calls) as client:
        work = (one(client, first, calls) for first in range(calls))
        failures = [f for f in await asyncio.gather(*work, return_exceptions=True) if f is not None]
    print(f"{calls:,} calls at once, {ITEMS} items each, {len(failures)} errors, {time.monotonic() - began:.1f} s")
    for failure in failures[:5]:
        print(repr(failure))
    return len(failures)


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py soak many", description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    return 1 if asyncio.run(soak(parser.parse_args().calls)) else 0


if __name__ == "__main__":
    sys.exit(main())

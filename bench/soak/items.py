"""Many items over many streams, each numbered; exit 1 when one is lost, doubled or out of order, or memory grows.

`python3 dev.py soak items --items 1000000 --streams 200`
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator

import msgspec

from bema.core.call import Call
from bema.core.spec import EndpointSpec, Parameter, Shape
from bema.runtime.rpc.client import Client
from bench.soak.ends import ends, flat, memory


class Item(msgspec.Struct):
    stream: int
    number: int
    text: str = "x" * 100


COUNT = EndpointSpec("count", Shape.STREAM, (Parameter("stream", int), Parameter("count", int)), Item)


async def count(call: Call) -> AsyncIterator[Item]:
    for number in range(call.arguments["count"]):
        yield Item(call.arguments["stream"], number)


class Soak:
    def __init__(self, items: int, streams: int) -> None:
        self.each = items // streams
        self.streams = streams
        self.read = 0
        self.readings: list[int] = []
        self._step = max(items // 30, 1)

    async def follow(self, client: Client, stream: int) -> None:
        expected = 0
        async for item in client.stream({"stream": stream, "count": self.each}, timeout=600):
            if (item.stream, item.number) != (stream, expected):
                raise ValueError(f"stream {stream} got {item} where {expected} was due")
            expected += 1
            self.read += 1
            if not self.read % self._step:
                self.readings.append(memory())
        if expected != self.each:
            raise ValueError(f"stream {stream} ended after {expected} items")

    async def run(self) -> bool:
        began = time.monotonic()
        async with ends(COUNT, count) as client:
            await asyncio.gather(*(self.follow(client, stream) for stream in range(self.streams)))
        print(f"{self.read:,} items over {self.streams} streams in order, {time.monotonic() - began:.1f} s")
        third = len(self.readings) // 3  # while windows and allocators fill
        return flat(max(self.readings[:third]), max(self.readings[third:]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py soak items", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, default=200)
    asked = parser.parse_args()
    return 0 if asyncio.run(Soak(asked.items, asked.streams).run()) else 1


if __name__ == "__main__":
    sys.exit(main())

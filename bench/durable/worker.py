"""The worker that the bench calls: its calls and callers are in another process."""

import asyncio

import bema
from bema import Call, endpoint, service

EACH = 50  # steps of one call


async def add(number: int) -> int:
    return number + 1


async def begun(sent: int) -> int:
    return bema.core.clock.SystemClock().now() - sent


@service(name="stepping", namespace="bench")
class Stepping:
    @endpoint(durable=True)
    async def steps(self, count: int, call: Call) -> int:
        number = 0
        for _ in range(count):
            number = await call.step(add, number)
        return number

    @endpoint(durable=True)
    async def started(self, sent: int, call: Call) -> int:
        """Microseconds from when the caller sent it."""
        return await call.step(begun, sent)


if __name__ == "__main__":
    asyncio.run(bema.serve(Stepping))

"""The service that the stories about life start, stop, kill and stall: `python life.py [uvloop]`."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator

from bema import endpoint, on_shutdown, service


@service(name="worker", namespace="life")
class Worker:
    def __init__(self) -> None:
        self.answered = 0
        self.ends: list[float] = []

    @endpoint(idempotent=True)
    async def pid(self) -> int:
        return os.getpid()

    @endpoint()
    async def once(self, number: int) -> int:
        await asyncio.sleep(0.002)
        self.answered += 1
        return number

    @endpoint()
    async def slow(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "whole"

    @endpoint()
    async def count(self, n: int, pause: float) -> AsyncIterator[tuple[int, int]]:
        for i in range(n):
            yield os.getpid(), i
            await asyncio.sleep(pause)

    @endpoint()
    async def watched(self) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.01)
        finally:
            self.ends.append(time.monotonic())

    @endpoint()
    async def left(self) -> list[float]:
        return self.ends

    @endpoint()
    async def block(self, seconds: float) -> str:
        time.sleep(seconds)  # the whole loop, as people do
        return "whole"

    @endpoint()
    async def fork(self) -> int:
        child = os.fork()
        if child == 0:
            time.sleep(120)
            os._exit(0)
        return child

    @on_shutdown
    async def tell(self) -> None:
        print(f"shut after {self.answered}", flush=True)

    @on_shutdown
    def tell_plainly(self) -> None:
        print("shut plainly", flush=True)


if __name__ == "__main__":
    if "uvloop" in sys.argv:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Worker.start())  # type: ignore[attr-defined]
    else:
        asyncio.run(Worker.start())  # type: ignore[attr-defined]

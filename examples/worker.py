"""A service that streams. Start it with `python3 examples/worker.py`, call it from another terminal:

bema call demo.worker.generate text=hello --stream
"""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from bema import endpoint, service


class ChatRequest(msgspec.Struct):
    text: str = "hello"


@service(name="worker", namespace="demo")
class Worker:
    @endpoint()
    async def generate(self, request: ChatRequest) -> AsyncIterator[str]:
        yield "token1"
        yield "token2"
        yield "token3"


if __name__ == "__main__":
    asyncio.run(Worker.start())  # type: ignore[attr-defined]

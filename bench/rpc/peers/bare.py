"""A bare asyncio echo: bytes come, bytes go, nothing is decoded. What no RPC on this loop can pass."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from bench.rpc import driving

OVERHEAD = 32  # bytes that a message has beside its text


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class Asking(asyncio.Protocol):
    """Keeps `calls` messages on their way until the time is over."""

    def __init__(self, size: int, calls: int, stop: float) -> None:
        self._size, self._calls, self._stop = size, calls, stop
        self._odd = 0
        self.count = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"x" * self._size * self._calls)

    def data_received(self, data: bytes) -> None:
        whole, self._odd = divmod(self._odd + len(data), self._size)
        self.count += whole
        if time.perf_counter() >= self._stop:
            if not self.over.done():
                self.over.set_result(None)
        elif whole:
            self._transport.write(b"x" * self._size * whole)


class Bare(driving.Peer):
    async def server(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        if address.startswith("/"):
            self._server = await loop.create_unix_server(Echo, address)
        else:
            host, _, port = address.rpartition(":")
            self._server = await loop.create_server(Echo, host, int(port))

    async def client(self, address: str) -> dict[str, Any]:
        async def run(order: dict[str, Any]) -> dict[str, Any]:
            loop = asyncio.get_running_loop()
            calls, began = order["calls"], time.perf_counter()
            asking = Asking(OVERHEAD + order["size"], calls, began + order["seconds"])
            if address.startswith("/"):
                transport, _ = await loop.create_unix_connection(lambda: asking, address)
            else:
                host, _, port = address.rpartition(":")
                transport, _ = await loop.create_connection(lambda: asking, host, int(port))
            await asking.over
            seconds = time.perf_counter() - began
            transport.abort()
            # in a closed loop the mean time to an answer is what each message had of the whole time
            return {"n": asking.count, "seconds": seconds, "p50": calls * seconds / asking.count * 1e6, "p99": 0.0}

        return {"bytes": run}


if __name__ == "__main__":
    driving.main(Bare())

"""nats-py request and reply through a NATS server; the address is the server's."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import Any

from bench.rpc import driving


class Nats(driving.Peer):
    def __init__(self) -> None:
        self._nats = importlib.import_module("nats")
        packer = importlib.import_module("msgspec").msgpack
        self._encode, self._decode = packer.encode, packer.decode
        self._tasks: set[asyncio.Future[None]] = set()

    async def server(self, address: str) -> None:
        connection = await self._nats.connect(f"nats://{address}")
        encode, decode = self._encode, self._decode

        async def echo(message: Any) -> None:
            await message.respond(encode(decode(message.data)))

        async def stream(message: Any) -> None:
            async for item in driving.items(**decode(message.data)):
                await connection.publish(message.reply, encode(item))
            await connection.publish(message.reply, b"")

        async def start(message: Any) -> None:
            task = asyncio.ensure_future(stream(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        await connection.subscribe("echo", cb=echo)
        await connection.subscribe("stream", cb=start)
        await connection.flush()

    async def client(self, address: str) -> dict[str, Any]:
        connection = await self._nats.connect(f"nats://{address}")
        encode, decode = self._encode, self._decode

        async def unary(message: Any) -> Any:
            return decode((await connection.request("echo", encode(message), timeout=10)).data)

        async def stream(count: int, paced: bool) -> AsyncIterator[Any]:
            inbox = connection.new_inbox()
            answers = await connection.subscribe(inbox)
            await connection.publish("stream", encode({"count": count, "paced": paced}), reply=inbox)
            while data := (await answers.next_msg(timeout=10)).data:
                yield decode(data)
            await answers.unsubscribe()

        return {"unary": unary, "stream": stream}


if __name__ == "__main__":
    driving.main(Nats())

"""grpc.aio with generic handlers and msgpack messages, on asyncio's own loop as its documentation asks."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from typing import Any

from bench.rpc import driving

OPTIONS = [("grpc.max_receive_message_length", 1 << 26)]


class GrpcAio(driving.Peer):
    uvloop = False

    def __init__(self) -> None:
        self._grpc = importlib.import_module("grpc")
        packer = importlib.import_module("msgspec").msgpack
        self._codec = packer.encode, packer.decode

    async def server(self, address: str) -> None:
        grpc, (encode, decode) = self._grpc, self._codec

        async def echo(request: Any, context: Any) -> Any:
            return request

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async for item in driving.items(**request):
                yield item

        server = self._server = grpc.aio.server(options=OPTIONS)
        handlers = {
            "echo": grpc.unary_unary_rpc_method_handler(echo, decode, encode),
            "stream": grpc.unary_stream_rpc_method_handler(stream, decode, encode),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Rpc", handlers),))
        server.add_insecure_port(address)
        await server.start()

    async def client(self, address: str) -> dict[str, Any]:
        encode, decode = self._codec
        channel = self._channel = self._grpc.aio.insecure_channel(address, options=OPTIONS)
        many = channel.unary_stream("/bench.Rpc/stream", encode, decode)
        return {
            "unary": channel.unary_unary("/bench.Rpc/echo", encode, decode),
            "stream": lambda count, paced: many({"count": count, "paced": paced}),
        }


if __name__ == "__main__":
    driving.main(GrpcAio())

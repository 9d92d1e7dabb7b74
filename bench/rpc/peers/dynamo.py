"""ai-dynamo-runtime over its TCP request plane with file discovery; the environment says where (`DYN_FILE_KV`)."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import Any

from bench.rpc import driving


class Dynamo(driving.Peer):
    def __init__(self) -> None:
        self._module = importlib.import_module("dynamo.runtime")

    def _runtime(self) -> Any:
        return self._module.DistributedRuntime(asyncio.get_running_loop(), "file", "tcp")

    async def server(self, address: str) -> None:
        runtime = self._kept = self._runtime()

        async def echo(request: Any, *, context: Any) -> Any:
            return request

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async for item in driving.items(**request):
                yield item

        loop = asyncio.get_running_loop()
        unary = self._module.serve_unary_endpoint(runtime.endpoint("bench.rpc.echo"), echo)
        self._serving = [
            loop.create_task(unary),
            asyncio.ensure_future(runtime.endpoint("bench.rpc.stream").serve_endpoint(stream)),
        ]
        await asyncio.sleep(1.5)

    async def client(self, address: str) -> dict[str, Any]:
        runtime = self._kept = self._runtime()
        one = await runtime.endpoint("bench.rpc.echo").client()
        many = await runtime.endpoint("bench.rpc.stream").client()
        await one.wait_for_instances()
        await many.wait_for_instances()

        async def stream(count: int, paced: bool) -> AsyncIterator[Any]:
            async for item in await many.round_robin({"count": count, "paced": paced}, annotated=False):
                yield item

        return {"unary": self._module.UnaryClient(one).complete, "stream": stream}


if __name__ == "__main__":
    driving.main(Dynamo())

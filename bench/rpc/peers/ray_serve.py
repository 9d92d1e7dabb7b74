"""Ray Serve handles: one replica that takes 256 calls at once; the address is Ray's own affair."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import Any

from bench.rpc import driving


class RayServe(driving.Peer):
    uvloop = False

    def __init__(self) -> None:
        self._ray = importlib.import_module("ray")
        self._serve = importlib.import_module("ray.serve")

    async def server(self, address: str) -> None:
        quiet = {"include_dashboard": False, "configure_logging": False, "log_to_driver": False}

        class Echo:
            async def echo(self, message: Any) -> Any:
                return message

            async def stream(self, count: int, paced: bool) -> AsyncIterator[Any]:
                for n in range(count):
                    if paced:
                        await asyncio.sleep(0)
                    yield {"text": "hello world", "n": n}

        def start() -> None:
            self._ray.init(num_cpus=2, namespace="bench", **quiet)
            deploy = self._serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.1})
            self._serve.run(deploy(Echo).bind(), name="bench", route_prefix=None)

        await asyncio.get_running_loop().run_in_executor(None, start)

    async def client(self, address: str) -> dict[str, Any]:
        def join() -> Any:
            self._ray.init(address="auto", namespace="bench", configure_logging=False, log_to_driver=False)
            return self._serve.get_app_handle("bench")

        handle = await asyncio.get_running_loop().run_in_executor(None, join)
        many = handle.stream.options(stream=True)

        async def unary(message: Any) -> Any:
            return await handle.echo.remote(message)

        async def stream(count: int, paced: bool) -> AsyncIterator[Any]:
            async for item in many.remote(count, paced):
                yield item

        return {"unary": unary, "stream": stream}


if __name__ == "__main__":
    driving.main(RayServe())

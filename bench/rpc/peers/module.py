"""Any module with a FullServer and a FullClient protocol: `module.py VERB ADDRESS MODULE.py`.

`FullServer.handlers` maps a route to a handler of (payload, context): a coroutine function, or an async generator
function. `FullClient(loop).unary(route, payload, headers, seconds)` is awaited, `.stream(...)` iterated. Both take the
event loop and are asyncio protocols.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from typing import Any

from bench.rpc import driving

TRACE = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}


class Module(driving.Peer):
    def __init__(self, path: str) -> None:
        spec = importlib.util.spec_from_file_location("peer", path)
        if spec is None or spec.loader is None:
            raise SystemExit(f"{path} is no Python module")
        self._module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._module)

    async def server(self, address: str) -> None:
        async def echo(payload: Any, context: Any = None) -> Any:
            return payload

        def stream(payload: Any, context: Any = None) -> AsyncIterator[Any]:
            return driving.items(**payload)

        self._module.FullServer.handlers = {"echo": echo, "stream": stream}
        loop = asyncio.get_running_loop()
        if address.startswith("/"):
            self._server = await loop.create_unix_server(lambda: self._module.FullServer(loop), address)
        else:
            host, _, port = address.rpartition(":")
            self._server = await loop.create_server(lambda: self._module.FullServer(loop), host, int(port))

    async def client(self, address: str) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        client: Any
        if address.startswith("/"):
            _, client = await loop.create_unix_connection(lambda: self._module.FullClient(loop), address)
        else:
            host, _, port = address.rpartition(":")
            _, client = await loop.create_connection(lambda: self._module.FullClient(loop), host, int(port))
        return {
            "unary": lambda message: client.unary("echo", message, TRACE, 10),
            "stream": lambda count, paced: client.stream("stream", {"count": count, "paced": paced}, TRACE, 10),
        }


if __name__ == "__main__":
    driving.main(Module(sys.argv[3]))

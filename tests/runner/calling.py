"""A client of a service that a test launched itself, found by what it announced."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from bema.core.instance import EndpointInfo, Instance
from bema.runtime.discovery.discovery import View
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.rpc.client import Client
from bema.runtime.rpc.pool import ConnectionPool

TOKEN = "secret"


class Caller(NamedTuple):
    """Who calls the only instance of `demo.counter`."""

    pool: ConnectionPool
    view: View

    def client(self, endpoint: str) -> Client:
        return Client(self.pool, self.view, f"demo.counter.{endpoint}")


@contextlib.asynccontextmanager
async def calling(said: dict[str, Any], *endpoints: str) -> AsyncIterator[Caller]:
    """`said` is the announcement of a service with that token and those endpoints."""
    discovery, pool = MemoryDiscovery(), ConnectionPool("test")
    await discovery.register(
        Instance(
            id=1,
            namespace="demo",
            component="counter",
            endpoints=tuple(EndpointInfo(endpoint) for endpoint in endpoints),
            addresses=said["addresses"],
            token=TOKEN,
        )
    )
    try:
        yield Caller(pool, await discovery.view("demo", "counter"))
    finally:
        await pool.close()

"""A server and its clients over one transport, as the tests of the RPC use them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from bema.core.call import Handler
from bema.core.instance import Instance, info_of
from bema.core.spec import EndpointSpec, Parameter, Shape
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.rpc.client import Client
from bema.runtime.rpc.pool import ConnectionPool
from bema.runtime.rpc.server import Server

TRANSPORTS = ("unix", "tcp", "memory")
_names = itertools.count()


def address(transport: str, folder: Path) -> str:
    number = next(_names)
    return {"unix": f"unix:{folder}/{number}.sock", "tcp": "tcp:127.0.0.1:0", "memory": f"memory:test-{number}"}[
        transport
    ]


def unary(name: str, returns: Any = Any, *, idempotent: bool = False, **types: Any) -> EndpointSpec:
    return _spec(name, Shape.UNARY, returns, types, idempotent)


def stream(name: str, returns: Any = Any, *, resumable: bool = False, **types: Any) -> EndpointSpec:
    return msgspec.structs.replace(_spec(name, Shape.STREAM, returns, types, False), resumable=resumable)


def _spec(name: str, shape: Shape, returns: Any, types: dict[str, Any], idempotent: bool) -> EndpointSpec:
    return EndpointSpec(name, shape, tuple(Parameter(n, t) for n, t in types.items()), returns, idempotent=idempotent)


class Served:
    """Servers of component `t.t`, each an instance of one memory discovery, and clients that find them."""

    def __init__(self, transport: str, folder: Path) -> None:
        self._transport = transport
        self._folder = folder
        self._handlers: dict[str, tuple[EndpointSpec, Handler]] = {}
        self._ids = itertools.count(1)
        self.discovery = MemoryDiscovery()
        self.pool = ConnectionPool("test")
        self.servers: dict[int, Server] = {}

    def handler(self, spec: EndpointSpec) -> Callable[[Any], Any]:
        def mark(handler: Handler) -> Handler:
            self._handlers[spec.name] = (spec, handler)
            return handler

        return mark

    async def start(self, **options: Any) -> int:
        """One more instance that serves every handler; returns its id."""
        ident = next(self._ids)
        server = self.servers[ident] = Server(f"token {ident}", name=f"t{ident}", **options)
        for name, (spec, handler) in self._handlers.items():
            server.add(f"t.t.{name}", handler, spec)
        where = await server.listen(address(self._transport, self._folder))
        await self.discovery.register(
            Instance(
                id=ident,
                namespace="t",
                component="t",
                endpoints=tuple(info_of(spec) for spec, _ in self._handlers.values()),
                addresses={"rpc": (where,)},
                token=f"token {ident}",
            )
        )
        return ident

    def lose(self, ident: int) -> None:
        """End an instance as kill -9 does: its record goes, and its connections break."""
        self.cut(ident)
        self.discovery.drop(ident)

    def cut(self, ident: int) -> None:
        """Break the connections of an instance."""
        for connection in tuple(self.servers[ident].connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def client(self, name: str, **options: Any) -> Client:
        spec = options.pop("endpoint", self._handlers[name][0] if name in self._handlers else None)
        view = await self.discovery.view("t", "t")
        return Client(options.pop("pool", self.pool), view, f"t.t.{name}", spec, **options)

    async def call(self, name: str, timeout: float | None = 5, **arguments: Any) -> Any:
        return await (await self.client(name)).unary(arguments, timeout=timeout)

    @property
    def server(self) -> Server:
        return next(iter(self.servers.values()))

    async def close(self) -> None:
        await self.pool.close()
        for server in self.servers.values():
            await server.close()


@contextlib.asynccontextmanager
async def serving(transport: str, folder: Path) -> AsyncIterator[Served]:
    served = Served(transport, folder)
    try:
        yield served
    finally:
        await served.close()


async def until(condition: Callable[[], bool], within: float = 5.0) -> float:
    """Turn the loop until `condition` holds; the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within, "the condition never came to hold"
        await asyncio.sleep(0.002)
    return time.monotonic() - began

"""bema itself: typed and untyped calls through Server, Pool and Client, with deadline and trace on every call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pydantic

from bema.core.call import Call
from bema.core.instance import EndpointInfo, Instance
from bema.core.spec import EndpointSpec, Parameter, Shape
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.rpc.client import Client
from bema.runtime.rpc.pool import ConnectionPool
from bema.runtime.rpc.server import Server
from bench.rpc import driving

TRACE = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
TOKEN = "a token as long as the real ones are, in base64"


class Message(msgspec.Struct):
    text: str
    n: int


class Model(pydantic.BaseModel):
    text: str
    n: int


def _echo(name: str, kind: Any) -> EndpointSpec:
    return EndpointSpec(name, Shape.UNARY, (Parameter("request", kind),), kind)


ENDPOINTS = {
    "unary": _echo("unary", Message),
    "untyped": _echo("untyped", Any),
    "pydantic": _echo("pydantic", Model),
    "stream": EndpointSpec("stream", Shape.STREAM, (Parameter("count", int), Parameter("paced", bool)), Message),
}


async def echo(call: Call) -> Any:
    return call.arguments["request"]


async def stream(call: Call) -> AsyncIterator[Message]:
    paced = call.arguments["paced"]
    for n in range(call.arguments["count"]):
        if paced:
            await asyncio.sleep(0)
        yield Message("hello world", n)


def at(address: str) -> str:
    return f"unix:{address}" if address.startswith("/") else f"tcp:{address}"


class Ours(driving.Peer):
    async def server(self, address: str) -> None:
        server = self._server = Server(TOKEN, name="bench")
        for name, spec in ENDPOINTS.items():
            server.add(f"bench.rpc.{name}", stream if name == "stream" else echo, spec)
        await server.listen(at(address))

    async def client(self, address: str) -> dict[str, Any]:
        discovery = MemoryDiscovery()
        await discovery.register(
            Instance(
                id=1,
                namespace="bench",
                component="rpc",
                endpoints=tuple(EndpointInfo(spec.name, spec.shape) for spec in ENDPOINTS.values()),
                addresses={"rpc": (at(address),)},
                token=TOKEN,
            )
        )
        pool, view = ConnectionPool(), await discovery.view("bench", "rpc")
        clients = {name: Client(pool, view, f"bench.rpc.{name}", spec) for name, spec in ENDPOINTS.items()}

        def unary(name: str) -> Any:
            call = clients[name].unary
            return lambda message: call({"request": message}, timeout=10, metadata=TRACE)

        operations = {name: unary(name) for name in ("unary", "untyped", "pydantic")}
        many = clients["stream"].stream
        operations["stream"] = lambda count, paced: many({"count": count, "paced": paced}, timeout=10, metadata=TRACE)
        return operations

    def message(self, op: str, size: int) -> Any:
        plain = super().message(op, size)
        return Message(**plain) if op == "unary" else Model(**plain) if op == "pydantic" else plain


if __name__ == "__main__":
    driving.main(Ours())

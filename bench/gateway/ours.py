"""The data listener as `bema.gateway` serves it, with one record in its discovery: `ours.py PORT BACKEND_PORT ID`."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys

import uvloop

from bema.core.errors import NotFound
from bema.core.instance import Instance
from bema.deploy.model.deployment import Activation
from bema.gateway.http.exchange import Exchange
from bema.gateway.http.listener import DataListener
from bema.gateway.routing.choice import InstanceRoute
from bema.gateway.routing.table import RoutingTable
from bema.runtime.discovery.memory import MemoryDiscovery


async def nobody(deployment: str, wait: float) -> Activation:
    raise NotFound(f"there is no deployment {deployment}")


async def no_door(exchange: Exchange, route: InstanceRoute) -> None:
    raise NotFound("this bench has no service")


async def main(port: int, backend: int, deployment: str) -> None:
    discovery = MemoryDiscovery()
    addresses: dict[str, tuple[str, ...]] = {"http": (f"tcp:127.0.0.1:{backend}",)}
    discovery.put(Instance(id=1, namespace="bench", component="backend", deployment=deployment, addresses=addresses))
    listener = DataListener(RoutingTable(await discovery.view()), nobody, no_door)
    await listener.listen(socket.create_server(("127.0.0.1", port)))
    gc.freeze()
    await asyncio.Event().wait()


uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))

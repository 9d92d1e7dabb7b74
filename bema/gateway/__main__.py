"""The gateway as a process: `python -m bema.gateway`, launched with an Init that names two listening sockets.

Law: both listeners accept before the process announces itself; after a Stop neither does, and the process ends when
nothing runs any more or the time it was given is over.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from typing import Any

from bema.core.errors import Refused
from bema.deploy.orchestrator.service import Orchestrator
from bema.gateway.server import Gateway
from bema.runtime.distributed import DistributedRuntime
from bema.runtime.process.descriptors import raise_limit
from bema.sdk.boot import Boot, Served, run
from bema.sdk.event_loop import loop_factory
from bema.wire.module.handshake import Announce, EndpointAnnounce, Init


async def main() -> None:
    async with Boot("gateway") as boot:
        init = await boot.handshake()
        if boot.channel is None:
            raise Refused("the gateway is started by `bema up`", fix="Run `bema up`.")
        settings = init.settings or {}
        logging.basicConfig(
            level=str(settings.get("log.level", "info")).upper(), format="%(levelname)s %(name)s %(message)s"
        )
        runtime = await boot.opened.enter_async_context(DistributedRuntime(limits=boot.limits))
        await boot.live(ServedGateway(boot, Gateway(runtime, Orchestrator, settings)))


class ServedGateway(Served):
    """Both listeners of the Init, from the moment they accept."""

    def __init__(self, boot: Boot, gateway: Gateway) -> None:
        self._boot = boot
        self._gateway = gateway

    async def serve(self) -> None:
        began = time.monotonic()
        data, control = (_listener(self._boot.init, name) for name in ("data", "control"))
        await self._gateway.listen(data, control)
        # What was made until now lives as long as the process: frozen, it is left out of every
        # later collection, whose pauses would fall on requests.
        gc.collect()
        gc.freeze()
        self._boot.took("startup", began)
        # After both listeners accept: who reads the announcement may connect at once.
        self._boot.announce(_announcement(self._boot.init.settings or {}))
        await asyncio.Event().wait()

    async def drain(self, grace: float) -> bool:
        return await self._gateway.drain(grace)


def _listener(init: Init, name: str) -> socket.socket:
    number = (init.listen_fds or {}).get(name)
    if number is None:
        raise Refused(f"the Init names no {name} listener", code="bad_setting")
    listener = socket.socket(fileno=number)
    listener.setblocking(False)
    # It was passed to this process; whatever this process starts has no business with it.
    listener.set_inheritable(False)
    return listener


def _announcement(settings: dict[str, Any]) -> Announce:
    data, api = str(settings["gateway_url"]), str(settings["api_url"])
    endpoints = [EndpointAnnounce("/gateway", ["*"]), EndpointAnnounce("/faas/python", ["GET", "POST"], "token")]
    return Announce(listen=data, endpoints=endpoints, addresses={"http": [data, api]})


if __name__ == "__main__":
    raise_limit()
    run(main(), loop_factory(), platform=True)

"""The gateway as a process: `python -m bema.gateway`, launched with an Init that names two listening sockets.

Law: both listeners accept before the process announces itself; after a Stop neither does, and the process ends when
nothing runs any more or the time it was given is over.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from bema.core.errors import Refused
from bema.core.settings import current
from bema.deploy.orchestrator.service import Orchestrator
from bema.gateway.server import Gateway
from bema.runtime.distributed import DistributedRuntime
from bema.runtime.process.channel import VARIABLE, Channel
from bema.wire.module.handshake import Announce, EndpointAnnounce, Init, Stop


async def main() -> None:
    number = os.environ.pop(VARIABLE, "")
    if not number.isdecimal():
        raise Refused("the gateway is started by `bema up`", fix="Run `bema up`.")
    limits = current().limits
    inherited = await Channel.open(int(number), limits=limits)
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, _stop, inherited.stop)
    init = await inherited.init()
    settings = init.settings or {}
    limits = limits.told(settings)
    logging.basicConfig(
        level=str(settings.get("log.level", "info")).upper(), format="%(levelname)s %(name)s %(message)s"
    )
    data, control = (_listener(init, name) for name in ("data", "control"))
    async with DistributedRuntime(limits=limits) as runtime:
        gateway = Gateway(runtime, Orchestrator, settings)
        await gateway.listen(data, control)
        gc.collect()
        gc.freeze()
        _announce(inherited, settings)
        stop = await inherited.stop
        grace = init.drain_ms if stop.deadline_ms is None else stop.deadline_ms
        await gateway.drain(limits.drain if grace is None else grace / 1000)


def _listener(init: Init, name: str) -> socket.socket:
    number = (init.listen_fds or {}).get(name)
    if number is None:
        raise Refused(f"the Init names no {name} listener", code="bad_setting")
    listener = socket.socket(fileno=number)
    listener.setblocking(False)
    listener.set_inheritable(False)
    return listener


def _announce(inherited: Channel, settings: dict[str, Any]) -> None:
    data, api = str(settings["gateway_url"]), str(settings["api_url"])
    endpoints = [EndpointAnnounce("/gateway", ["*"]), EndpointAnnounce("/faas/python", ["GET", "POST"], "token")]
    inherited.announce(Announce(listen=data, endpoints=endpoints, addresses={"http": [data, api]}))


def _stop(stop: asyncio.Future[Stop]) -> None:
    if not stop.done():
        stop.set_result(Stop(reason="a signal"))


def _runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    try:
        import uvloop  # noqa: PLC0415 - extra
    except ImportError:
        return asyncio.run
    return uvloop.run


if __name__ == "__main__":
    try:
        _runner()(main())
    except Refused as error:
        sys.exit(f"error: {error.message} {error.fix}")

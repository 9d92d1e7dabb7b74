"""Both listeners in one process, from the moment they accept to the moment nothing runs any more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from bema.core.access import GATEWAY
from bema.core.limits import DEFAULTS, Limits
from bema.deploy.orchestrator.service import Orchestrator
from bema.gateway.control.app import Control
from bema.gateway.doors.endpoint import Doors
from bema.gateway.http.listener import DataListener, without_delay
from bema.gateway.routing.table import RoutingTable
from bema.runtime.distributed import DistributedRuntime

__all__ = ["Embedded", "Gateway"]

_PATIENCE = 2.0  # seconds in which an orchestrator that was restarted is there again


class Gateway:
    """The data listener and the control listener, over one runtime."""

    def __init__(
        self, runtime: DistributedRuntime, orchestrator: Callable[..., Orchestrator], settings: Mapping[str, Any]
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._limits = runtime.limits
        self._orchestrator = runtime.client(orchestrator, timeout=self._limits.start + _PATIENCE, wait=_PATIENCE)
        self._following = runtime.client(orchestrator, wait=_PATIENCE)
        self.data: DataListener | None = None
        self._control: Embedded | None = None
        self._serving: asyncio.Task[None] | None = None

    async def listen(self, data: socket.socket, control: socket.socket) -> None:
        """Accept on both sockets; returns when both do."""
        everything = await self._runtime.discovery.view()
        platform = await self._runtime.view("bema", "orchestrator")
        table = RoutingTable(everything)
        doors = Doors(self._runtime.pool, table.instances_of)
        host = str(self._settings.get("gateway.host", "127.0.0.1"))
        self.data = DataListener(
            table,
            lambda deployment, wait: self._orchestrator.activate(deployment, wait, GATEWAY),
            doors.serve,
            loopback=_is_loopback(host),
            limits=self._limits,
        )
        api = Control(
            self._orchestrator,
            following=self._following,
            token=Path(str(self._settings["token_file"])).read_text(encoding="utf-8").strip(),  # noqa: ASYNC240 - once, before anything is served
            gateway=str(self._settings["gateway_url"]).rstrip("/"),
            api=str(self._settings["api_url"]).rstrip("/"),
            activities=self.data.activities,
            most=self._limits.http_body,
            reachable=lambda: any(instance.routable() for instance in platform.instances()),
        )
        await self.data.listen(data)
        without_delay(control)
        self._control = Embedded(api.app, self._limits)
        self._serving = asyncio.create_task(self._control.serve([control]), name="control listener")
        accepting = asyncio.create_task(self._control.accepting.wait())
        await asyncio.wait({accepting, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        accepting.cancel()
        if self._serving.done():
            self._serving.result()

    async def drain(self, grace: float) -> bool:
        """Stop accepting on both, finish what runs within `grace` seconds. False when something had to be cut."""
        return all(await asyncio.gather(self._drain_data(grace), self._drain_control(grace)))

    async def _drain_data(self, grace: float) -> bool:
        return self.data is None or await self.data.drain(grace)

    async def _drain_control(self, grace: float) -> bool:
        if self._control is None or self._serving is None:
            return True
        self._control.should_exit = True
        await asyncio.wait({self._serving}, timeout=grace)
        whole = self._serving.done() or not self._control.server_state.tasks
        self._serving.cancel()
        return whole


class Embedded(uvicorn.Server):
    """uvicorn without its signal handlers: who launched this process says when it stops.

    It closes no connection that never asked for anything, so that is done here: nobody needs a token to open one.
    """

    def __init__(self, app: ASGIApp, limits: Limits = DEFAULTS) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, round(limits.drain)),
                limit_concurrency=limits.http_connections,
            )
        )
        self._patience = limits.http_head_time
        self._silent: dict[Any, float] = {}  # connections that run no request, and since when they were seen so
        self.accepting = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            self._sweep(time.monotonic())
        return await super().on_tick(counter)

    def _sweep(self, now: float) -> None:
        """End what has not sent a whole head for as long as the data listener would wait for one."""
        silent = [c for c in self.server_state.connections if getattr(c, "cycle", None) is None]
        self._silent = {c: self._silent.get(c, now) for c in silent}
        for connection, since in self._silent.items():
            if now - since > self._patience and connection.transport is not None:
                connection.transport.close()


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")

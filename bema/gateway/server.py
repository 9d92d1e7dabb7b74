"""Both listeners in one process, from the moment they accept to the moment nothing runs any more."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from bema.core.access import GATEWAY
from bema.core.instance import Instance
from bema.core.limits import DEFAULTS, Limits
from bema.core.naming import new_instance_id
from bema.deploy.orchestrator.service import Orchestrator
from bema.gateway.control.app import Control
from bema.gateway.control.connection import ControlConnection
from bema.gateway.doors.endpoint import Doors
from bema.gateway.http.listener import DataListener, affordable_control, without_delay
from bema.gateway.routing.decision import Hosts
from bema.gateway.routing.reports import LoadReports
from bema.gateway.routing.table import RoutingTable
from bema.runtime.discovery.discovery import Lease
from bema.runtime.distributed import DistributedRuntime
from bema.runtime.processes import own_namespace, own_start

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
        # Longer than a start: the orchestrator answers at its own limit, with the reason.
        self._orchestrator = runtime.client(orchestrator, timeout=self._limits.start + _PATIENCE, wait=_PATIENCE)
        self._following = runtime.client(orchestrator, wait=_PATIENCE)
        self.data: DataListener | None = None
        self._control: Embedded | None = None
        self._serving: asyncio.Task[None] | None = None
        self._following_keys: asyncio.Task[None] | None = None
        self._shown: Lease | None = None
        self._reporting: asyncio.Task[None] | None = None

    async def listen(self, data: socket.socket, control: socket.socket) -> None:
        """Accept on both sockets; returns when both do."""
        everything = await self._runtime.discovery.view()
        platform = await self._runtime.view("bema", "orchestrator")
        table = RoutingTable(everything)
        doors = Doors(self._runtime.pool, table.instances_of)
        self.data = DataListener(
            table,
            lambda deployment, wait: self._orchestrator.activate(deployment, wait, GATEWAY),
            doors.serve,
            hosts=self._hosts("gateway.host"),
            limits=self._limits,
        )
        api = Control(
            self._orchestrator,
            following=self._following,
            token=Path(str(self._settings["token_file"])).read_text(encoding="utf-8").strip(),  # noqa: ASYNC240 - once, before anything is served
            gateway=str(self._settings["gateway_url"]).rstrip("/"),
            api=str(self._settings["api_url"]).rstrip("/"),
            activities=self.data.activities,
            starts=self.data.dispatcher.starts,
            most=self._limits.http_body,
            reachable=lambda: any(instance.routable() for instance in platform.instances()),
        )
        me, pid = new_instance_id(), os.getpid()
        # before it accepts: an instance is taken away once every gateway that is shown sends it nothing any more
        self._shown = await self._runtime.discovery.register(
            Instance(
                id=me,
                namespace="bema",
                component="gateway",
                pid=pid,
                process_start=own_start(pid),
                pid_namespace=own_namespace(pid),
            )
        )
        reports = LoadReports(
            me,
            table,
            self.data.activities,
            self.data.dispatcher.admission,
            lambda report: self._following.loads(report, GATEWAY),
        )
        platform.follow(lambda changes: reports.again() if any(change.before is None for change in changes) else None)
        self._reporting = asyncio.create_task(reports.run(), name="load reports")
        await self.data.listen(data)
        without_delay(control)
        self._following_keys = asyncio.create_task(api.follow(), name="keys")
        self._control = Embedded(api.app, self._limits, self._hosts("control.host"))
        self._serving = asyncio.create_task(self._control.serve([control]), name="control listener")
        # Either it accepts, or it ended: a port that fails must end the start, not hang it.
        accepting = asyncio.create_task(self._control.accepting.wait())
        await asyncio.wait({accepting, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        accepting.cancel()
        if self._serving.done():
            self._serving.result()

    def _hosts(self, bound: str) -> Hosts:
        return Hosts(str(self._settings.get(bound, "127.0.0.1")), str(self._settings.get("hosts", "")))

    async def drain(self, grace: float) -> bool:
        """Stop accepting on both, finish what runs within `grace` seconds. False when something had to be cut."""
        whole = all(await asyncio.gather(self._drain_data(grace), self._drain_control(grace)))
        if self._reporting is not None:
            self._reporting.cancel()
        if self._shown is not None:
            await self._shown.release()
        return whole

    async def _drain_data(self, grace: float) -> bool:
        return self.data is None or await self.data.drain(grace)

    async def _drain_control(self, grace: float) -> bool:
        if self._control is None or self._serving is None:
            return True
        self._control.should_exit = True
        await asyncio.wait({self._serving}, timeout=grace)
        # A connection without a request may be left, which is no cut; a task is a request that ran.
        whole = self._serving.done() or not self._control.server_state.tasks
        self._serving.cancel()
        if self._following_keys is not None:
            self._following_keys.cancel()
        return whole


class Embedded(uvicorn.Server):
    """uvicorn without its signal handlers: who launched this process says when it stops.

    The deadlines of its connections are kept here: uvicorn closes none that never asked for anything.
    """

    def __init__(self, app: ASGIApp, limits: Limits = DEFAULTS, hosts: Hosts | None = None) -> None:
        most = min(limits.http_connections, affordable_control())
        connection = functools.partial(ControlConnection, limits=limits, most=most, hosts=hosts or Hosts())
        super().__init__(
            uvicorn.Config(
                app,
                http=cast("type[asyncio.Protocol]", connection),
                ws="none",
                # The app has no start and end of its own: the boot of the process owns both.
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # uvicorn would believe X-Forwarded-For of any client on loopback.
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, round(limits.drain)),
                timeout_keep_alive=math.ceil(limits.http_idle),
            )
        )
        self.accepting = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()

    async def on_tick(self, counter: int) -> bool:
        # a tick is 0.1 seconds
        if counter % 5 == 0:
            now = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, ControlConnection) and connection.deadline < now:
                    connection.expire()
        return await super().on_tick(counter)

"""The data listener: connections in, deployments behind them.

Law: the warm path creates no task. A request that finds an idle connection to a running instance is spliced in the same
turn of the loop in which it arrived; only what has to wait (a start, a new connection, a door) gets a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from bema.core.errors import Unavailable
from bema.core.limits import DEFAULTS, Limits
from bema.gateway.http.connection import HttpConnection
from bema.gateway.http.exchange import Exchange
from bema.gateway.http.pending import PendingRequests
from bema.gateway.http.upstream import Upstream, UpstreamPool
from bema.gateway.routing.activator import Activate, Activator
from bema.gateway.routing.activity import Activities, Activity
from bema.gateway.routing.table import InstanceRoute, RoutingTable

__all__ = ["DataListener", "ServeDoor", "without_delay"]

ServeDoor = Callable[[Exchange, InstanceRoute], Awaitable[None]]

_SWEEP = 0.5
_LEAVES = 0.25  # seconds in which the record of a dead instance leaves the table


def without_delay(listener: socket.socket) -> None:
    """Accepted connections inherit it; asyncio sets it only where it knows the protocol, uvloop always."""
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class DataListener:
    """Owns the client connections, the pool and the sweep that ends what is late."""

    def __init__(
        self,
        table: RoutingTable,
        activate: Activate,
        door: ServeDoor,
        *,
        loopback: bool = True,
        limits: Limits = DEFAULTS,
    ) -> None:
        self.limits = limits
        self.loopback = loopback
        self.activities = Activities()
        self.connections: set[HttpConnection] = set()
        self.authority = b"127.0.0.1"
        self.draining = False
        self.table = table
        self.pool = UpstreamPool(self.limits)
        self._waking = Activator(table, activate, self.limits)
        self._stranded = PendingRequests(table, self._waking.wait)
        self._door = door
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    async def listen(self, listener: socket.socket) -> None:
        """Accept on a bound socket."""
        without_delay(listener)
        name = listener.getsockname()
        if isinstance(name, tuple):
            self.authority = b"127.0.0.1:%d" % name[1]
        self._server = await self._loop.create_server(lambda: HttpConnection(self), sock=listener, backlog=4096)
        self._sweep()

    async def drain(self, grace: float) -> None:
        """Stop accepting, finish what runs within `grace` seconds, then end the rest."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self.connections:
                    self._empty.clear()
                    await self._empty.wait()
        for connection in tuple(self.connections):
            connection.transport.abort()
        self.pool.close()
        self._stranded.close()
        self.table.close()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # What a connection calls

    def entered(self, connection: HttpConnection) -> bool:
        self.connections.add(connection)
        self.activities.connections = len(self.connections)
        return len(self.connections) <= self.limits.http_connections

    def left(self, connection: HttpConnection) -> None:
        self.connections.discard(connection)
        self.activities.connections = len(self.connections)
        if not self.connections:
            self._empty.set()

    # What an exchange calls

    def warm(self, deployment: str) -> tuple[Upstream, Activity] | None:
        """An idle connection to an instance that takes requests, without waiting for anything."""
        route = self.table.route(deployment)
        if route is None or route.protocol != "http":
            return None
        upstream = self.pool.take(route.address)
        return None if upstream is None else (upstream, self.activities.of(deployment))

    async def reach(self, deployment: str) -> tuple[Upstream | InstanceRoute, Activity]:
        """A connection to an instance, or the instance whose door is here; waits for a start where there is none.

        Only a failed dial is tried again, once: nothing was sent then.
        """
        failed: OSError | None = None
        for _ in range(2):
            route = self.table.route(deployment) or await self._waking.wait(deployment)
            activity = self.activities.of(deployment)
            if route.protocol != "http":
                return route, activity
            try:
                return self.pool.take(route.address) or await self.pool.dial(route.address), activity
            except OSError as error:
                failed = error
                activity.upstream_failures += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.table.left(route), _LEAVES)
        refused = Unavailable(f"the instance does not accept connections: {failed}", fix="Try again in a moment.")
        refused.retry_after = 1
        raise refused from failed

    async def serve_door(self, exchange: Exchange, route: InstanceRoute) -> None:
        await self._door(exchange, route)

    def _sweep(self) -> None:
        self.now = now = self._loop.time()
        for connection in tuple(self.connections):
            if connection.deadline < now:
                connection.expire()
        self._stranded.look([c.exchange for c in self.connections if c.exchange is not None])
        self.pool.sweep()
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep)

"""DataListener: the listener through which HTTP clients reach deployments.

Law: the warm path creates no task. A request that finds an idle connection to a running instance is spliced in the same
turn of the loop in which it arrived; only a request that has to wait (for a start, a new connection, a door) gets a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket

from bema.core.limits import DEFAULTS, Limits
from bema.gateway.http.connection import LATE, HttpConnection
from bema.gateway.http.dispatcher import Dispatcher
from bema.gateway.http.exchange import Door
from bema.gateway.http.pending import PendingRequests
from bema.gateway.routing.activator import Activate
from bema.gateway.routing.decision import Hosts
from bema.gateway.routing.table import RoutingTable

__all__ = ["DataListener", "affordable", "affordable_control", "without_delay"]

_SWEEP = 0.5
_OWN = 128 + LATE  # descriptors for what is no client: files, the keeper, the orchestrator, who is being refused


def without_delay(listener: socket.socket) -> None:
    """Turn Nagle's algorithm off for the connections that a listener accepts."""
    # On the listener, since accepted sockets inherit it on Linux. asyncio sets it only for sockets whose protocol number it
    # knows, uvloop for all.
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def affordable() -> int:
    """Client connections that the descriptors of this process allow: each may need one to an instance beside its own.

    Past them a client is told 503; past the descriptors themselves nobody could be accepted, or told anything.
    """
    return max(1, (_spare() - affordable_control()) // 2)


def affordable_control() -> int:
    """The same for the control listener. It has a share of its own, so that a full data listener can still be looked at."""
    return max(1, _spare() // 8)


def _spare() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OWN


class DataListener:
    """Owns the client connections, and the sweep that ends those whose deadline has passed."""

    def __init__(
        self,
        table: RoutingTable,
        activate: Activate,
        door: Door,
        *,
        hosts: Hosts | None = None,
        limits: Limits = DEFAULTS,
    ) -> None:
        self.dispatcher = Dispatcher(table, activate, hosts=hosts or Hosts(), limits=limits)
        self.dispatcher.most_connections = min(limits.http_connections, affordable())
        self.activities = self.dispatcher.activities
        self.table = table
        self.connections: set[HttpConnection] = set()
        self._pending = PendingRequests(table, self.dispatcher.activator.wait)
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def listen(self, listener: socket.socket) -> None:
        """Accept on a bound socket."""
        without_delay(listener)
        name = listener.getsockname()
        if isinstance(name, tuple):
            self.dispatcher.authority = b"127.0.0.1:%d" % name[1]
        # The kernel's queue is for bursts of a turn; who is over the cap is told so by us.
        self._server = await self._loop.create_server(self.accept, sock=listener, backlog=4096)
        self._sweep()

    def accept(self) -> HttpConnection:
        """A connection of this listener, before it has a transport."""
        return HttpConnection(self.dispatcher, self._door, self.connections)

    async def drain(self, grace: float) -> bool:
        """Stop accepting, give running requests `grace` seconds, then end the rest. False where any request was cut."""
        self.dispatcher.draining = True
        self.dispatcher.leaving.set()
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self.connections:
                    self.dispatcher.empty.clear()
                    await self.dispatcher.empty.wait()
        # Asked before the aborts, which end every exchange.
        whole = all(connection.exchange is None for connection in self.connections)
        for connection in tuple(self.connections):
            connection.transport.abort()
        self.dispatcher.pool.close()
        self._pending.close()
        self.table.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return whole

    def _sweep(self) -> None:
        # one timer for all connections, so that no request arms and cancels one
        self.dispatcher.now = now = self._loop.time()
        for connection in tuple(self.connections):
            if connection.deadline < now:
                connection.expire()
        self._pending.look([c.exchange for c in self.connections if c.exchange is not None])
        self.dispatcher.pool.sweep()
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep)

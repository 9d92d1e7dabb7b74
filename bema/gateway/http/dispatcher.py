"""Dispatcher: from a deployment to a connection to one of its instances, shared by all connections of one listener.

Laws: the warm path waits for nothing. A request that finds a free place at a running instance, and an idle connection to it,
gets both at once. A place is held from before the connection is looked for until the exchange ends, so that an instance with
nothing in flight here is sent nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from bema.core.errors import Unavailable
from bema.core.limits import DEFAULTS, Limits
from bema.core.naming import show_instance_id
from bema.gateway.http.upstream import Upstream, UpstreamPool
from bema.gateway.routing.activator import Activate, Activator
from bema.gateway.routing.activity import Activities
from bema.gateway.routing.admission import RequestAdmission
from bema.gateway.routing.choice import InstanceRoute, Seat
from bema.gateway.routing.decision import Hosts
from bema.gateway.routing.starts import Starts
from bema.gateway.routing.table import RoutingTable

__all__ = ["Dispatcher", "unreached"]

_log = logging.getLogger("bema.gateway")

_LEAVES = 0.25  # seconds in which the record of a dead instance leaves the table


class Dispatcher:
    """Finds connections to instances. `authority` is the listener's own; `now` is the loop's time at the last sweep."""

    # `now` instead of the clock: a deadline needs no more than the sweep's half second, and the clock costs a call

    def __init__(self, table: RoutingTable, activate: Activate, *, hosts: Hosts, limits: Limits = DEFAULTS) -> None:
        self.limits = limits
        self.most_connections = limits.http_connections
        self.hosts = hosts
        self.authority = b"127.0.0.1"
        self.draining = False
        self.leaving = asyncio.Event()  # the same, for who waits for it
        self.now = asyncio.get_running_loop().time()
        self.empty = asyncio.Event()  # set when the last connection has ended
        self.activities = Activities()
        self.starts = Starts()
        self.table = table
        table.arriving = self.starts.shown
        self.pool = UpstreamPool(limits)
        self.activator = Activator(table, activate, limits)
        self.admission = RequestAdmission(table, self.activator.wait, limits)

    def left(self, remaining: int) -> None:
        """Note that a client's connection has ended, and how many are left."""
        self.activities.connections = remaining
        if not remaining:
            self.empty.set()

    def instance_at(self, deployment: str, address: str) -> str:
        """The id of the instance behind an address, for the log."""
        for instance in self.table.instances_of(deployment).instances():
            if any(address in addresses for addresses in instance.addresses.values()):
                return show_instance_id(instance.id)
        return "that is gone"

    def idle(self, place: Seat) -> Upstream | None:
        """An idle connection to the instance of a place, or None; never waits."""
        route = place.route
        return self.pool.take(route.address) if route is not None and route.protocol == "http" else None

    async def connect(self, place: Seat, *, fresh: bool = False) -> Upstream | InstanceRoute | None:
        """A connection to the instance of a place, or its route where a door answers for it; None where it is not reached.

        A `fresh` connection is a new one.
        """
        route = place.route
        assert route is not None, "a place is given with a route"
        if route.protocol != "http":
            return route
        idle = None if fresh else self.pool.take(route.address)
        try:
            return idle or await self.pool.dial(route.address)
        except OSError as error:
            self.activities.of(route.deployment).upstream_failures += 1
            _log.info("an instance of %s does not accept connections: %s", route.deployment, error)
            # the lock of a dead instance is free at once, its record goes when that was noticed
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.table.left(route), _LEAVES)
            return None


def unreached() -> Unavailable:
    """The answer where no instance accepts a connection."""
    refused = Unavailable("the instance does not accept connections", fix="Try again in a moment.")
    refused.retry_after = 1
    return refused

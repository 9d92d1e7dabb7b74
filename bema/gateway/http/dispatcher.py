"""Dispatcher: from a deployment to a connection to one of its instances, shared by all connections of one listener.

Law: the warm path waits for nothing. A request that finds an idle connection to a running instance gets it at once.
"""

from __future__ import annotations

import asyncio
import contextlib

from bema.core.errors import Unavailable
from bema.core.limits import DEFAULTS, Limits
from bema.core.naming import show_instance_id
from bema.gateway.http.upstream import Upstream, UpstreamPool
from bema.gateway.routing.activator import Activate, Activator
from bema.gateway.routing.activity import Activities, Activity
from bema.gateway.routing.decision import Hosts
from bema.gateway.routing.table import InstanceRoute, RoutingTable

__all__ = ["Dispatcher"]

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
        self.table = table
        self.pool = UpstreamPool(limits)
        self.activator = Activator(table, activate, limits)

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

    def warm(self, deployment: str) -> tuple[Upstream, Activity] | None:
        """An idle connection to an instance that takes requests, or None; never waits."""
        route = self.table.route(deployment)
        if route is None or route.protocol != "http":
            return None
        upstream = self.pool.take(route.address)
        return None if upstream is None else (upstream, self.activities.of(deployment))

    async def reach(self, deployment: str, *, fresh: bool = False) -> tuple[Upstream | InstanceRoute, Activity]:
        """A connection to an instance, or the route to an instance that a door answers for. Waits for a start if need be.

        A `fresh` connection is a new one.

        Raises:
            Unavailable: no instance accepts a connection; `retry_after` is set.
            BemaError: what `Activator.wait` raises where there is no instance.
        """
        failed: OSError | None = None
        # only a failed dial is tried again: nothing was sent then, so the request cannot run twice
        for _ in range(2):
            route = self.table.route(deployment) or await self.activator.wait(deployment)
            activity = self.activities.of(deployment)
            if route.protocol != "http":
                return route, activity
            try:
                idle = None if fresh else self.pool.take(route.address)
                return idle or await self.pool.dial(route.address), activity
            except OSError as error:
                failed = error
                activity.upstream_failures += 1
                # The lock of a dead instance is free at once, its record goes when that was
                # noticed.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.table.left(route), _LEAVES)
        refused = Unavailable(f"the instance does not accept connections: {failed}", fix="Try again in a moment.")
        refused.retry_after = 1
        raise refused from failed

"""Discovery inside one process: the twin of the flock discovery, and the plainest reading of what a discovery promises.

Law: what is shown is kept in this object alone, so whoever is to meet is given the same one.
"""

from __future__ import annotations

import asyncio

import msgspec

from bema.core.errors import Conflict
from bema.core.instance import Instance
from bema.core.naming import show_instance_id
from bema.runtime.discovery.discovery import Lease, Reservation, View, Views


class MemoryDiscovery:
    """Discovery inside one process and one event loop, for tests and single processes."""

    spans_processes: bool = False

    def __init__(self) -> None:
        self._views = Views()
        self._held: set[int] = set()
        self._fence = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def register(self, instance: Instance) -> Lease:
        """Show `instance` under a new lease; `Conflict` (code `already_served`) if its id is held."""
        lease = await self.reserve(instance.id)
        await lease.update(instance)
        return lease

    async def reserve(self, instance_id: int) -> Reservation:
        """Hold an id and show nothing yet; `Conflict` (code `already_served`) if it is held."""
        if instance_id in self._held:
            raise Conflict(f"instance {show_instance_id(instance_id)} is registered already", code="already_served")
        self._held.add(instance_id)
        self._fence += 1
        self._loop = asyncio.get_running_loop()
        return _MemoryReservation(self, instance_id, self._fence)

    async def adopt(self, instance_id: int) -> Reservation:
        """Take charge of a reservation whose owner has gone."""
        shown = self._views.shown(instance_id)
        self._fence += shown is None
        return _MemoryReservation(self, instance_id, self._fence if shown is None else shown.fence)

    async def view(self, namespace: str | None = None, component: str | None = None) -> View:
        """A live view of one component, of one namespace, or (without either) of everything."""
        return self._views.open(namespace, component, self._views.close)

    async def close(self) -> None:
        """Remove every record."""
        gone, self._held = self._held, set()
        self._views.show((instance_id, None) for instance_id in gone)

    def shown(self, instance_id: int) -> Instance | None:
        """The record that is shown under an id; None where there is none."""
        return self._views.shown(instance_id)

    def put(self, instance: Instance) -> None:
        """Show `instance`, whoever holds it."""
        self._held.add(instance.id)
        self._views.show([(instance.id, instance)])

    def replace(self, instance: Instance) -> None:
        """Show `instance` if its id is held."""
        if instance.id in self._held:
            self.put(instance)

    def soon(self, instance: Instance) -> None:
        """As `replace`, from any thread, at the loop's next turn."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.replace, instance)

    def drop(self, instance_id: int) -> None:
        """Give an id back and remove its record."""
        self._held.discard(instance_id)
        self._views.show([(instance_id, None)])


class _MemoryReservation:
    """A lease that its discovery holds, as it holds all of them."""

    descriptor: int | None = None

    def __init__(self, home: MemoryDiscovery, instance_id: int, fence: int) -> None:
        self._home = home
        self._id = instance_id
        self.fence = fence

    @property
    def shown(self) -> Instance | None:
        return self._home.shown(self._id)

    async def update(self, instance: Instance) -> None:
        self._home.replace(msgspec.structs.replace(instance, fence=self.fence))

    def mark(self, instance: Instance) -> None:
        """In one loop nobody could look while it stalls: it is shown when the loop turns again."""
        self._home.soon(msgspec.structs.replace(instance, fence=self.fence))

    async def hand_over(self) -> None:
        """There is no other process to have it."""

    async def release(self) -> None:
        self._home.drop(self._id)

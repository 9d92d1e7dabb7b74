"""Discovery: where instances register and are looked up. A lease is the life of a record.

Who launches others registers on their behalf: a reservation is a lease whose life becomes another process's, while what
it shows stays with who reserved it, or with who adopts it after that one is gone. The in-memory implementation below is for tests and single processes; the default is `runtime/discovery/flock.py`. Which one a
runtime uses where it is given none is the factory's answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

import msgspec

from bema.core.errors import Conflict
from bema.core.instance import Instance
from bema.core.naming import show_instance_id
from bema.core.version import VERSION
from bema.parts import Factory

Changed = Callable[[], None]

LARGEST = 256 * 1024
"""Bytes of a record as JSON that every discovery can show."""


class Lease(Protocol):
    """The life of one record: while it is held, the record is shown.

    `fence` grows with every lease given out by one discovery; a store refuses writes under an older one.
    """

    fence: int

    async def update(self, instance: Instance) -> None:
        """Replace the record (same id) at once. `Refused` when it cannot be shown now; it is tried again by itself."""
        ...

    def mark(self, instance: Instance) -> None:
        """The same from any thread, for what a loop that does not turn cannot say itself. A failure is not told."""
        ...

    async def release(self) -> None:
        """Take the record away. Safe to call twice."""
        ...


class Reservation(Lease, Protocol):
    """A lease taken for another process: the id is held, and nothing is shown before the first `update`.

    `descriptor` is what a process holds the lease by, where the engine has such: copies of it are passed on, and the
    last to close ends the lease, whatever ended its holder. Where it is None this discovery holds the lease, and who
    reserved it releases it when the process has gone.
    """

    @property
    def descriptor(self) -> int | None: ...

    @property
    def shown(self) -> Instance | None:
        """The record as it was shown last; None before."""
        ...

    async def hand_over(self) -> None:
        """The process has its copy: close ours. What is shown stays ours to say, and outlives this discovery."""
        ...


class View(Protocol):
    """A live picture of the instances of one component, or of all; kept current by its discovery."""

    def instances(self) -> tuple[Instance, ...]:
        """All instances, routable or not, in order of id. Cheap: the same tuple until something changes."""
        ...

    def subscribe(self, changed: Changed) -> Callable[[], None]:
        """Call `changed()` in the event loop after each change; returns what ends it."""
        ...

    async def close(self) -> None: ...


class Discovery(Protocol):
    """Where instances register and are looked up; each is of one event loop.

    `spans_processes` says whether other processes meet here too: a platform of several needs that.
    """

    spans_processes: bool

    async def register(self, instance: Instance) -> Lease:
        """Show `instance` under a new lease; `Conflict` if its id is held already."""
        ...

    async def reserve(self, instance_id: int) -> Reservation:
        """Hold an id for a process that is about to be started; `Conflict` if it is held already."""
        ...

    async def adopt(self, instance_id: int) -> Reservation:
        """Take charge of what was reserved and handed over by somebody who is gone; its process holds it still.

        Where nobody holds it any more, nothing that is shown of it is seen.
        """
        ...

    async def view(self, namespace: str | None = None, component: str | None = None) -> View:
        """A view whose first picture is complete when this returns."""
        ...

    async def close(self) -> None:
        """Release what this discovery still holds."""
        ...


class DiscoveryFactory(Factory[Discovery], group="bema.discovery", api=VERSION, default="flock"):
    """Made without arguments, one per event loop."""


DiscoveryFactory.register_lazy("flock", "bema.runtime.discovery.flock:FlockDiscovery")


class LiveView:
    """What both implementations hand out: a picture, its filter and its subscribers."""

    def __init__(self, namespace: str | None, component: str | None, closed: Callable[[LiveView], None]) -> None:
        self._namespace = namespace
        self._component = component
        self._closed = closed
        self._picture: tuple[Instance, ...] = ()
        self._subscribers: list[Changed] = []

    def show(self, instances: list[Instance]) -> None:
        """Take a new picture; subscribers hear of it when it differs."""
        picture = tuple(
            sorted(
                (
                    i
                    for i in instances
                    if (self._namespace is None or i.namespace == self._namespace)
                    and (self._component is None or i.component == self._component)
                ),
                key=lambda i: i.id,
            )
        )
        if picture != self._picture:
            self._picture = picture
            for changed in tuple(self._subscribers):
                changed()

    def instances(self) -> tuple[Instance, ...]:
        return self._picture

    def subscribe(self, changed: Changed) -> Callable[[], None]:
        self._subscribers.append(changed)
        return lambda: self._subscribers.remove(changed) if changed in self._subscribers else None

    async def close(self) -> None:
        self._closed(self)


async def wait_for(view: View, ready: Callable[[tuple[Instance, ...]], bool]) -> tuple[Instance, ...]:
    """Wait until `ready` holds of the view's picture. Put a timeout around it."""
    turned = asyncio.Event()
    stop = view.subscribe(turned.set)
    try:
        while not ready(view.instances()):
            turned.clear()
            await turned.wait()
        return view.instances()
    finally:
        stop()


@DiscoveryFactory.register("memory")
class MemoryDiscovery:
    """Discovery inside one process and one event loop."""

    spans_processes: bool = False

    def __init__(self) -> None:
        self._records: dict[int, Instance] = {}
        self._held: set[int] = set()
        self._views: list[LiveView] = []
        self._fence = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def register(self, instance: Instance) -> Lease:
        lease = await self.reserve(instance.id)
        await lease.update(instance)
        return lease

    async def reserve(self, instance_id: int) -> Reservation:
        if instance_id in self._held:
            raise Conflict(f"instance {show_instance_id(instance_id)} is registered already", code="already_served")
        self._held.add(instance_id)
        self._fence += 1
        self._loop = asyncio.get_running_loop()
        return _MemoryReservation(self, instance_id, self._fence)

    async def adopt(self, instance_id: int) -> Reservation:
        shown = self._records.get(instance_id)
        self._fence += shown is None
        return _MemoryReservation(self, instance_id, self._fence if shown is None else shown.fence)

    async def view(self, namespace: str | None = None, component: str | None = None) -> View:
        view = LiveView(namespace, component, self._forget)
        self._views.append(view)
        view.show(list(self._records.values()))
        return view

    async def close(self) -> None:
        self._records.clear()
        self._held.clear()
        self._turn()

    def shown(self, instance_id: int) -> Instance | None:
        return self._records.get(instance_id)

    def put(self, instance: Instance) -> None:
        """Show `instance`, whoever holds it."""
        self._held.add(instance.id)
        self._records[instance.id] = instance
        self._turn()

    def replace(self, instance: Instance) -> None:
        """Show `instance` if its id is held."""
        if instance.id in self._held:
            self.put(instance)

    def soon(self, instance: Instance) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.replace, instance)

    def drop(self, instance_id: int) -> None:
        self._held.discard(instance_id)
        if self._records.pop(instance_id, None) is not None:
            self._turn()

    def _forget(self, view: LiveView) -> None:
        with contextlib.suppress(ValueError):
            self._views.remove(view)

    def _turn(self) -> None:
        for view in tuple(self._views):
            view.show(list(self._records.values()))


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

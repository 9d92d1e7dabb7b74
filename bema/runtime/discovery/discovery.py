"""Discovery: where instances register and are looked up. A lease is the life of a record.

The in-memory implementation below is for tests and single processes; the default is `runtime/discovery/flock.py`. Which one a
runtime uses where it is given none is the factory's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from bema.core.errors import Conflict
from bema.core.instance import Instance
from bema.core.version import VERSION
from bema.parts import Factory

Changed = Callable[[], None]


class Lease(Protocol):
    """The life of one record: while it is held, the record is shown.

    `fence` grows with every lease given out by one discovery; a store refuses writes under an older one.
    """

    fence: int

    async def update(self, instance: Instance) -> None:
        """Replace the record (same id) at once."""
        ...

    def mark(self, instance: Instance) -> None:
        """The same from any thread, for what a loop that does not turn cannot say itself. A failure is not told."""
        ...

    async def release(self) -> None:
        """Take the record away. Safe to call twice."""
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
    """Where instances register and are looked up; each is of one event loop."""

    async def register(self, instance: Instance) -> Lease:
        """Show `instance` under a new lease; `Conflict` if its id is held already."""
        ...

    async def view(self, namespace: str | None = None, component: str | None = None) -> View:
        """A view whose first picture is complete when this returns."""
        ...

    async def close(self) -> None:
        """Release what this discovery still holds."""
        ...


class DiscoveryFactory(Factory[Discovery], group="bema.discovery", api=VERSION, default="flock", opens="plain"):
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

    def __init__(self) -> None:
        self._records: dict[int, Instance] = {}
        self._views: list[LiveView] = []
        self._fence = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def register(self, instance: Instance) -> Lease:
        if instance.id in self._records:
            raise Conflict(f"instance {instance.label} is registered already", code="already_served")
        self._fence += 1
        self._loop = asyncio.get_running_loop()
        lease = _MemoryLease(self, instance.id, self._fence)
        await lease.update(instance)
        return lease

    async def view(self, namespace: str | None = None, component: str | None = None) -> View:
        view = LiveView(namespace, component, self._views.remove)
        self._views.append(view)
        view.show(list(self._records.values()))
        return view

    async def close(self) -> None:
        self._records.clear()
        self._turn()

    def put(self, instance: Instance) -> None:
        self._records[instance.id] = instance
        self._turn()

    def soon(self, instance: Instance) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._replace, instance)

    def _replace(self, instance: Instance) -> None:
        if instance.id in self._records:
            self.put(instance)

    def drop(self, instance_id: int) -> None:
        if self._records.pop(instance_id, None) is not None:
            self._turn()

    def _turn(self) -> None:
        for view in tuple(self._views):
            view.show(list(self._records.values()))


class _MemoryLease:
    def __init__(self, home: MemoryDiscovery, instance_id: int, fence: int) -> None:
        self._home = home
        self._id = instance_id
        self.fence = fence

    async def update(self, instance: Instance) -> None:
        self._home.put(msgspec.structs.replace(instance, fence=self.fence))

    def mark(self, instance: Instance) -> None:
        """In one loop nobody could look while it stalls: it is shown when the loop turns again."""
        self._home.soon(msgspec.structs.replace(instance, fence=self.fence))

    async def release(self) -> None:
        self._home.drop(self._id)

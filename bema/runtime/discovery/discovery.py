"""Discovery: where instances register and are looked up. A lease is the life of a record.

Who launches others registers on their behalf: a reservation is a lease whose life becomes another process's, while what
it shows stays with who reserved it, or with who adopts it after that one is gone. The in-memory implementation below is
for tests and single processes; the default is `runtime/discovery/flock.py`. Which one a runtime uses where it is given
none is the factory's answer.
"""

from __future__ import annotations

import asyncio
import types
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Protocol

import msgspec

from bema.core.instance import Instance
from bema.core.version import VERSION
from bema.parts import Factory

Changed = Callable[[], None]

LARGEST = 256 * 1024
"""Bytes of a record as JSON that every discovery can show."""


class InstanceChange(msgspec.Struct, frozen=True):
    """What became of one instance: it came (`before` is None), its record differs, or it went (`after` is None)."""

    before: Instance | None
    after: Instance | None


Told = Callable[[Sequence[InstanceChange]], None]


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
    def descriptor(self) -> int | None:
        """The file descriptor that holds the lease, or None."""
        ...

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

    def follow(self, told: Told) -> Callable[[], None]:
        """Call `told(changes)` in the event loop with what changed since the last time; returns what ends it.

        Whoever keeps an index follows: its work is of the changes, however many instances there are.
        """
        ...

    async def close(self) -> None:
        """Keep it current no longer."""
        ...


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


class DiscoveryFactory(Factory[Discovery], group="bema.discovery", api=VERSION, default="flock", opens="plain"):
    """Made without arguments, one per event loop."""


DiscoveryFactory.register_lazy("flock", "bema.runtime.discovery.flock:FlockDiscovery")

DiscoveryFactory.register_lazy("memory", "bema.runtime.discovery.memory:MemoryDiscovery")

_BY_ID = attrgetter("id")


class InstanceSet:
    """Instances in order of id, as the same tuple until one of them changes.

    Law: a change is found by halving, so it costs no more among ten thousand than among ten; the tuple is made when it
    is asked for.
    """

    __slots__ = ("_ordered", "_picture")

    def __init__(self, instances: Iterable[Instance] = ()) -> None:
        self.fill(instances)

    def fill(self, instances: Iterable[Instance]) -> None:
        """Have these and no others."""
        self._ordered = sorted(instances, key=_BY_ID)
        self._picture: tuple[Instance, ...] | None = None

    def __len__(self) -> int:
        return len(self._ordered)

    def put(self, instance: Instance) -> None:
        """Add it, or take it in place of the one with its id."""
        at = bisect_left(self._ordered, instance.id, key=_BY_ID)
        if at < len(self._ordered) and self._ordered[at].id == instance.id:
            self._ordered[at] = instance
        else:
            self._ordered.insert(at, instance)
        self._picture = None

    def drop(self, instance_id: int) -> None:
        """Take it out; nothing where it is not in."""
        at = bisect_left(self._ordered, instance_id, key=_BY_ID)
        if at < len(self._ordered) and self._ordered[at].id == instance_id:
            del self._ordered[at]
            self._picture = None

    def take(self, change: InstanceChange) -> None:
        """Follow a change."""
        if change.after is not None:
            self.put(change.after)
        elif change.before is not None:
            self.drop(change.before.id)

    def instances(self) -> tuple[Instance, ...]:
        if self._picture is None:
            self._picture = tuple(self._ordered)
        return self._picture


_Place = tuple[str | None, str | None]
"""What a view shows: a namespace and a component; None for all of them."""


class LiveView(InstanceSet):
    """What both implementations hand out: the instances of a place, and who wants to hear of their changes."""

    def __init__(
        self,
        place: _Place,
        instances: Iterable[Instance],
        closed: Callable[[LiveView], None],
        strangers: Mapping[int, Instance] = types.MappingProxyType({}),
    ) -> None:
        super().__init__(instances)
        self.strangers = strangers
        self.place = place
        self._closed = closed
        self._subscribers: list[Changed] = []
        self._followers: list[Told] = []

    def tell(self, changes: Sequence[InstanceChange]) -> None:
        """After every view of this discovery has taken them: who hears of a change may look at another view."""
        for told in tuple(self._followers):
            told(changes)
        for changed in tuple(self._subscribers):
            changed()

    def subscribe(self, changed: Changed) -> Callable[[], None]:
        self._subscribers.append(changed)
        return lambda: self._subscribers.remove(changed) if changed in self._subscribers else None

    def follow(self, told: Told) -> Callable[[], None]:
        self._followers.append(told)
        return lambda: self._followers.remove(told) if told in self._followers else None

    async def close(self) -> None:
        self._closed(self)


class Views:
    """The records of one discovery, and its views by the place they show; `strangers` are those that cannot be judged here.

    Law: a change reaches the views that show it and costs nothing for the others; views are current before anybody hears.
    """

    def __init__(self) -> None:
        self._records: dict[int, Instance] = {}
        self._members: dict[tuple[str, str], dict[int, Instance]] = {}
        self._by_place: dict[_Place, list[LiveView]] = {}
        self.strangers: dict[int, Instance] = {}

    def shown(self, instance_id: int) -> Instance | None:
        return self._records.get(instance_id)

    def opened(self) -> list[LiveView]:
        return [view for views in self._by_place.values() for view in views]

    def open(self, namespace: str | None, component: str | None, closed: Callable[[LiveView], None]) -> LiveView:
        """A view of what is shown now, kept current until `close`."""
        if namespace is not None and component is not None:
            shown: Iterable[Instance] = self._members.get((namespace, component), {}).values()
        else:
            shown = [i for i in self._records.values() if namespace in (None, i.namespace)]
            shown = [i for i in shown if component in (None, i.component)]
        view = LiveView((namespace, component), shown, closed, self.strangers)
        self._by_place.setdefault(view.place, []).append(view)
        return view

    def close(self, view: LiveView) -> None:
        views = self._by_place.get(view.place, [])
        if view in views:
            views.remove(view)
        if not views:
            self._by_place.pop(view.place, None)

    def show(self, changes: Iterable[tuple[int, Instance | None]]) -> None:
        """Take the records as they are now, by id; None for one that went. Who follows hears of all of them at once."""
        heard: dict[LiveView, list[InstanceChange]] = {}
        for instance_id, after in changes:
            before = self._records.get(instance_id)
            # a record that was only touched wakes nobody
            if before == after:
                continue
            self._keep(instance_id, before, after)
            for view, change in self._concerned(before, after):
                heard.setdefault(view, []).append(change)
        for view, told in heard.items():
            for change in told:
                view.take(change)
        for view, told in heard.items():
            view.tell(told)

    def _keep(self, instance_id: int, before: Instance | None, after: Instance | None) -> None:
        if before is not None:
            members = self._members[before.namespace, before.component]
            del members[instance_id], self._records[instance_id]
            if not members:
                del self._members[before.namespace, before.component]
        if after is not None:
            self._records[instance_id] = after
            self._members.setdefault((after.namespace, after.component), {})[instance_id] = after

    def _concerned(self, before: Instance | None, after: Instance | None) -> list[tuple[LiveView, InstanceChange]]:
        left, reached = _places(before), _places(after)
        found = []
        for place in left | reached:
            change = InstanceChange(before if place in left else None, after if place in reached else None)
            found += [(view, change) for view in self._by_place.get(place, ())]
        return found


def _places(instance: Instance | None) -> set[_Place]:
    """The places at which an instance is shown."""
    if instance is None:
        return set()
    return {(n, c) for n in (None, instance.namespace) for c in (None, instance.component)}


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

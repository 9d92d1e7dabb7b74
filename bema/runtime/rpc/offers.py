"""Offers: the instances that the calls of one caller to one endpoint may go to, kept current change by change.

Laws: what is deployed, what was started by hand and what `bema dev` runs do not answer one caller in turn. Its calls go to one
lane: the one that it asks for, else its own, else the deployed one, else what was started by hand. The offers of a view are
kept once for all its clients. A change costs the same whatever the number of instances, unless it brings or takes away a
lane, and nothing for an endpoint that nobody here calls.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary, ref

from bema.core.instance import DEPLOYED, DEV, HAND, Instance
from bema.runtime.discovery.discovery import InstanceChange, InstanceSet, View

HELD = 5.0  # seconds that an empty lane keeps its callers: what crashed or is restarted comes back to them


class LaneChoice(NamedTuple):
    """How a caller chooses: `asked` is the one lane it calls, `own` the lane that it runs in; empty where there is none."""

    asked: str = ""
    own: str = ""

    def of(self, lanes: Iterable[str], component: str) -> str:
        """The lane to call of those that a component has; empty where it has none."""
        return self.asked or min(lanes, key=lambda lane: self._rank(lane, component), default="")

    def _rank(self, lane: str, component: str) -> tuple[int, bool, str]:
        name = lane.removeprefix(DEPLOYED)
        if lane == self.own and lane != HAND:
            return 0, False, ""
        if name != lane:
            # of two deployments of one class the one that bears its name, then the first by name: the same for all
            # callers, whichever was started last
            return 1, name != component, name
        return {HAND: 2, DEV: 3}.get(lane, 4), False, lane


def answers(instance: Instance, route: str) -> bool:
    """Whether new calls to an endpoint may be sent to an instance."""
    place, _, endpoint = route.rpartition(".")
    return (
        instance.component_address == place
        and instance.routable()
        and "rpc" in instance.addresses
        and any(info.name == endpoint for info in instance.endpoints)
    )


class Offer(InstanceSet):
    """The instances of one lane that answer one endpoint."""

    __slots__ = ("lane", "place", "route")

    def __init__(self, route: str) -> None:
        super().__init__()
        self.route = route
        self.place = route.rpartition(".")[0]
        self.lane = ""

    def has(self, instance: Instance | None) -> Instance | None:
        """The instance, if it is one of these."""
        return (
            instance if instance is not None and instance.lane == self.lane and answers(instance, self.route) else None
        )


class _Lanes:
    """How many instances of one component each lane has. A lane that was left is kept for `HELD` seconds."""

    def __init__(self, instances: Iterable[Instance]) -> None:
        self.counts = Counter(instance.lane for instance in instances)

    def count(self, lane: str, by: int) -> bool:
        """Whether a lane came, or was left."""
        self.counts[lane] += by
        return self.counts[lane] == (0 if by < 0 else 1)


class EndpointIndex:
    """The offers of one view, for those endpoints that a client has asked for."""

    def __init__(self, view: View) -> None:
        self._view = ref(view)  # the table of indexes keeps this alive, and must not keep the view
        self._offers: dict[tuple[str, LaneChoice], Offer] = {}
        self._lanes: dict[str, _Lanes] = {}

    def offer(self, route: str, choice: LaneChoice) -> Offer:
        """The instances for a caller that chooses so, kept current."""
        found = self._offers.get((route, choice))
        if found is None:
            found = self._offers[route, choice] = Offer(route)
            if found.place not in self._lanes:
                self._lanes[found.place] = _Lanes(i for i in self._shown() if i.component_address == found.place)
            self._choose(found, choice, anew=True)
        return found

    def turned(self, changes: Sequence[InstanceChange]) -> None:
        """Take what changed in the view."""
        moved = {place for change in changes for place in self._counted(change)}
        for (_, choice), offer in self._offers.items():
            # one that was chosen anew was filled from the view, which is current already
            if offer.place in moved and self._choose(offer, choice):
                continue
            for change in changes:
                before, after = change.before, change.after
                offer.take(InstanceChange(offer.has(before), offer.has(after)))

    def _counted(self, change: InstanceChange) -> Iterable[str]:
        """The component, where a change brought it a lane or emptied one."""
        # the new state is counted first: an instance that only changed must not empty its lane
        # between the two
        for instance, by in ((change.after, 1), (change.before, -1)):
            lanes = None if instance is None else self._lanes.get(instance.component_address)
            if instance is None or lanes is None or not lanes.count(instance.lane, by):
                continue
            if by > 0:
                yield instance.component_address
            else:
                loop = asyncio.get_running_loop()
                loop.call_later(HELD, self._let_go, instance.component_address, instance.lane)

    def _let_go(self, place: str, lane: str) -> None:
        lanes = self._lanes[place]
        # it may have come back meanwhile
        if lanes.counts.get(lane) == 0:
            del lanes.counts[lane]
            for (_, choice), offer in self._offers.items():
                if offer.place == place:
                    self._choose(offer, choice)

    def _choose(self, offer: Offer, choice: LaneChoice, *, anew: bool = False) -> bool:
        """Whether the offer is of another lane now."""
        lane = choice.of(self._lanes[offer.place].counts, offer.place.rpartition(".")[2])
        if lane == offer.lane and not anew:
            return False
        offer.lane = lane
        offer.fill(i for i in self._shown() if offer.has(i))
        return True

    def _shown(self) -> tuple[Instance, ...]:
        view = self._view()
        return () if view is None else view.instances()


_indexes: WeakKeyDictionary[View, EndpointIndex] = WeakKeyDictionary()


def index_of(view: View) -> EndpointIndex:
    """The index of a view, made with its first client; it lives as long as the view."""
    index = _indexes.get(view)
    if index is None:
        index = _indexes[view] = EndpointIndex(view)
        view.follow(index.turned)
    return index

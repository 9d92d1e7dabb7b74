"""RoutingTable: which addresses answer for each deployment now, following Discovery change by change.

Laws: warm traffic reads this table and nothing else; no request on the warm path asks the orchestrator. A change costs the
same whatever the number of deployments, and wakes only those who wait for the deployment that it is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bema.core.instance import Instance, State
from bema.gateway.routing.choice import Asked, InstanceRoute, Seat, VersionChoice
from bema.runtime.discovery.discovery import InstanceChange, LiveView, View

__all__ = ["RoutingTable"]


class _Replicas(LiveView):
    """The instances of one deployment, and the routes to those that take requests."""

    def __init__(self) -> None:
        super().__init__((None, None), (), lambda view: None)
        self.routes: dict[int, InstanceRoute] = {}
        self.choice = VersionChoice()
        self._serving = 0

    def take_in(self, change: InstanceChange) -> Seat | None:
        """Take a change; gives the place of the instance that it is about, where that is still shown."""
        self.take(change)
        before, after = change.before, change.after
        self._serving += _serves(after) - _serves(before)
        if before is not None:
            self.routes.pop(before.id, None)
        if after is None:
            if before is not None:
                self.choice.drop(before.id)
            return None
        route = _route(after) if after.routable() else None
        if route is not None:
            self.routes[after.id] = route
        return self.choice.put(after, route)

    def kept_back(self) -> bool:
        # one is there and serves, so the orchestrator would start none: waiting is all that helps
        return self._serving > 0 and not self.routes


_NONE = _Replicas()


class RoutingTable:
    def __init__(self, view: View) -> None:
        self.leaving: Callable[[], None] = lambda: None  # told when an instance begins to drain
        self.arriving: Callable[[Instance], None] = lambda instance: (
            None
        )  # told of an instance that was not there before
        self._draining: dict[int, Seat] = {}
        self._deployments: dict[str, _Replicas] = {}
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._stop = view.follow(self._turned)
        self._turned([InstanceChange(None, instance) for instance in view.instances()])

    def route(self, deployment: str) -> InstanceRoute | None:
        """A route to an instance that takes requests now, busy or not; None where there is none."""
        replicas = self._deployments.get(deployment)
        return None if replicas is None else replicas.choice.route()

    def choose(self, deployment: str, asked: Asked) -> Seat | None:
        """The place for a request at an instance; None where there is none, or all are taken."""
        replicas = self._deployments.get(deployment)
        return None if replicas is None else replicas.choice.next(asked)

    def free(self, deployment: str) -> bool:
        """Whether any instance of the deployment takes another request now."""
        return self._replicas(deployment).choice.free()

    def knows(self, deployment: str, version: str) -> bool:
        """Whether the deployment has an instance of that version."""
        return self._replicas(deployment).choice.knows(version)

    def drained(self) -> list[int]:
        """The instances that drain and have nothing of this gateway in flight, in order."""
        return sorted(instance for instance, place in self._draining.items() if not place.in_flight)

    def present(self, deployment: str) -> bool:
        """Whether the deployment has any instance: one that drains still answers the requests that it took."""
        return deployment in self._deployments

    def instances_of(self, deployment: str) -> View:
        """A view of a deployment's instances. When the last has gone, the view stays empty."""
        return self._replicas(deployment)

    async def routed(self, deployment: str) -> InstanceRoute:
        """Wait until the deployment has a routable instance. Put a timeout around it."""
        await self._until(deployment, lambda: self.route(deployment) is not None)
        route = self.route(deployment)
        assert route is not None
        return route

    async def turned(self, deployment: str) -> None:
        """Wait until anything changes about the deployment's instances. Put a timeout around it."""
        first = iter((False,))
        await self._until(deployment, lambda: next(first, True))

    def kept_back(self, deployment: str) -> bool:
        """Whether the deployment has instances, and all of them are stalled or not ready."""
        return self._replicas(deployment).kept_back()

    def stands(self, deployment: str) -> str:
        """Where an instance of it that is stalled stands, as its record has it; empty where none does."""
        records = (str(each.data.get("stands", "")) for each in self._replicas(deployment).instances() if each.stalled)
        return next(filter(None, records), "")

    async def decided(self, deployment: str) -> None:
        """Wait while the deployment is kept back. Put a timeout around it."""
        await self._until(deployment, lambda: not self.kept_back(deployment))

    async def left(self, route: InstanceRoute) -> None:
        """Wait until `route` is no longer in the table. Put a timeout around it."""
        deployment, instance = route.deployment, route.instance.id
        await self._until(deployment, lambda: self._replicas(deployment).routes.get(instance) != route)

    def close(self) -> None:
        self._stop()

    def _replicas(self, deployment: str) -> _Replicas:
        return self._deployments.get(deployment, _NONE)

    async def _until(self, deployment: str, holds: Callable[[], bool]) -> None:
        turned = asyncio.Event()
        waiting = self._waiting.setdefault(deployment, set())
        waiting.add(turned)
        try:
            while not holds():
                turned.clear()
                await turned.wait()
        finally:
            waiting.discard(turned)
            # Identity: another may have begun to wait under this id after the set was emptied.
            if not waiting and self._waiting.get(deployment) is waiting:
                del self._waiting[deployment]

    def _turned(self, changes: Sequence[InstanceChange]) -> None:
        told: dict[str, list[InstanceChange]] = {}
        for change in changes:
            before, after = change.before, change.after
            left = before.deployment if before is not None else ""
            reached = after.deployment if after is not None else ""
            for deployment in {left, reached} - {""}:
                change = InstanceChange(
                    before if left == deployment else None, after if reached == deployment else None
                )
                self._leaves(change, self._deployments.setdefault(deployment, _Replicas()).take_in(change))
                told.setdefault(deployment, []).append(change)
                if change.before is None and change.after is not None:
                    self.arriving(change.after)
        for deployment, heard in told.items():
            replicas = self._deployments[deployment]
            # Deployments come and go for years; only those with instances are kept.
            if not len(replicas):
                del self._deployments[deployment]
            replicas.tell(heard)
            for turned in self._waiting.get(deployment, ()):
                turned.set()

    def _leaves(self, change: InstanceChange, place: Seat | None) -> None:
        """Keep what drains until it is shown no more."""
        if place is not None and place.instance.state is State.DRAINING:
            if self._draining.setdefault(place.instance.id, place) is place:
                self.leaving()
        elif change.before is not None and self._draining:
            self._draining.pop(change.before.id, None)


def _serves(instance: Instance | None) -> bool:
    return instance is not None and instance.state is State.SERVING


def _route(instance: Instance) -> InstanceRoute | None:
    for protocol in ("http", "rpc"):
        if addresses := instance.addresses.get(protocol):
            return InstanceRoute(instance.deployment, protocol, addresses[0], instance)
    return None

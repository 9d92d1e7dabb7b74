"""RoutingTable: which addresses answer for each deployment now, following Discovery change by change.

Laws: warm traffic reads this table and nothing else; no request on the warm path asks the orchestrator. A change costs the
same whatever the number of deployments, and wakes only those who wait for the deployment that it is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bema.core.instance import Instance, State
from bema.runtime.discovery.discovery import InstanceChange, LiveView, View

__all__ = ["InstanceRoute", "RoutingTable"]


class InstanceRoute(NamedTuple):
    """The address of one instance: the protocol `http` is spliced, `rpc` goes through a door."""

    deployment: str
    protocol: str
    address: str
    instance: Instance


class _Replicas(LiveView):
    """The instances of one deployment, and the routes to those that take requests."""

    def __init__(self) -> None:
        super().__init__((None, None), (), lambda view: None)
        self.routes: dict[int, InstanceRoute] = {}
        self._serving = 0
        self._turn = 0
        self._in_turn: tuple[InstanceRoute, ...] | None = None

    def take(self, change: InstanceChange) -> None:
        super().take(change)
        before, after = change.before, change.after
        self._serving += _serves(after) - _serves(before)
        if before is not None:
            self.routes.pop(before.id, None)
        if after is not None and after.routable() and (route := _route(after)):
            self.routes[after.id] = route
        self._in_turn = None

    def next(self) -> InstanceRoute | None:
        in_turn = self._in_turn
        if in_turn is None:
            in_turn = self._in_turn = tuple(self.routes[i] for i in sorted(self.routes))
        # The usual case, without arithmetic on the warm path.
        if len(in_turn) < 2:
            return in_turn[0] if in_turn else None
        self._turn += 1
        return in_turn[self._turn % len(in_turn)]

    def kept_back(self) -> bool:
        # one is there and serves, so the orchestrator would start none: waiting is all that helps
        return self._serving > 0 and not self.routes


_NONE = _Replicas()


class RoutingTable:
    def __init__(self, view: View) -> None:
        self._deployments: dict[str, _Replicas] = {}
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._stop = view.follow(self._turned)
        self._turned([InstanceChange(None, instance) for instance in view.instances()])

    def route(self, deployment: str) -> InstanceRoute | None:
        """A route to an instance that takes requests now, each in turn; None where there is none."""
        replicas = self._deployments.get(deployment)
        return None if replicas is None else replicas.next()

    def present(self, deployment: str) -> bool:
        """Whether the deployment has any instance: one that drains still answers the requests that it took."""
        return deployment in self._deployments

    def instances_of(self, deployment: str) -> View:
        """A view of a deployment's instances. When the last has gone, the view stays empty."""
        return self._replicas(deployment)

    async def routed(self, deployment: str) -> InstanceRoute:
        """Wait until the deployment has a routable instance. Put a timeout around it."""
        await self._until(deployment, lambda: bool(self._replicas(deployment).routes))
        return next(iter(self._replicas(deployment).routes.values()))

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
                self._deployments.setdefault(deployment, _Replicas()).take(change)
                told.setdefault(deployment, []).append(change)
        for deployment, heard in told.items():
            replicas = self._deployments[deployment]
            # Deployments come and go for years; only those with instances are kept.
            if not len(replicas):
                del self._deployments[deployment]
            replicas.tell(heard)
            for turned in self._waiting.get(deployment, ()):
                turned.set()


def _serves(instance: Instance | None) -> bool:
    return instance is not None and instance.state is State.SERVING


def _route(instance: Instance) -> InstanceRoute | None:
    for protocol in ("http", "rpc"):
        if addresses := instance.addresses.get(protocol):
            return InstanceRoute(instance.deployment, protocol, addresses[0], instance)
    return None

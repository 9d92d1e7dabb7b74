"""The table of instances: which address answers for a deployment now. A picture of Discovery, kept current by it.

Law: warm traffic reads this table and nothing else; no request on the warm path asks the orchestrator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from bema.core.instance import Instance, State
from bema.runtime.discovery.discovery import View

__all__ = ["InstanceRoute", "RoutingTable"]


class InstanceRoute(NamedTuple):
    """Where one instance is reached: `http` is spliced, `rpc` goes through the doors."""

    deployment: str
    protocol: str
    address: str
    instance: Instance


class RoutingTable:
    def __init__(self, view: View) -> None:
        self._view = view
        self._routes: dict[str, list[InstanceRoute]] = {}
        self._present: set[str] = set()
        self._kept_back: set[str] = set()
        self._turn = 0
        self._waiting: set[asyncio.Event] = set()
        self._stop = view.subscribe(self._changed)
        self._changed()

    def route(self, deployment: str) -> InstanceRoute | None:
        """An instance that takes requests now, each in turn."""
        routes = self._routes.get(deployment)
        if not routes:
            return None
        if len(routes) == 1:
            return routes[0]
        self._turn += 1
        return routes[self._turn % len(routes)]

    def present(self, deployment: str) -> bool:
        """Whether it has any instance, taking requests or not: one that drains still answers what it took."""
        return deployment in self._present

    async def routed(self, deployment: str) -> InstanceRoute:
        """Wait until the deployment has a routable instance. Put a timeout around it."""
        await self._until(lambda: deployment in self._routes)
        return self._routes[deployment][0]

    def kept_back(self, deployment: str) -> bool:
        """Whether it serves and takes nothing new: not ready as it says itself, or its loop does not turn."""
        return deployment in self._kept_back

    async def decided(self, deployment: str) -> None:
        """Wait while the deployment is kept back. Put a timeout around it."""
        await self._until(lambda: not self.kept_back(deployment))

    async def left(self, route: InstanceRoute) -> None:
        """Wait until `route` is no longer offered. Put a timeout around it."""
        await self._until(lambda: route not in self._routes.get(route.deployment, ()))

    def close(self) -> None:
        self._stop()

    async def _until(self, holds: Callable[[], bool]) -> None:
        turned = asyncio.Event()
        self._waiting.add(turned)
        try:
            while not holds():
                turned.clear()
                await turned.wait()
        finally:
            self._waiting.discard(turned)

    def _changed(self) -> None:
        routes: dict[str, list[InstanceRoute]] = {}
        serving: set[str] = set()
        self._present = {instance.deployment for instance in self._view.instances()}
        for instance in self._view.instances():
            if instance.state is State.SERVING:
                serving.add(instance.deployment)
            if instance.deployment and instance.routable() and (route := _route(instance)):
                routes.setdefault(instance.deployment, []).append(route)
        self._routes = routes
        self._kept_back = serving - routes.keys()
        for turned in tuple(self._waiting):
            turned.set()


def _route(instance: Instance) -> InstanceRoute | None:
    for protocol in ("http", "rpc"):
        if addresses := instance.addresses.get(protocol):
            return InstanceRoute(instance.deployment, protocol, addresses[0], instance)
    return None

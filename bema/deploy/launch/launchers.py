"""Several launchers as one: each workload goes to the launcher that it names.

Law: an event is taken from a launcher only when the one before it, of that launcher, has been dealt with; what one of
them is slow to say keeps no other waiting. A launcher is opened when something first names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from bema.core.errors import NotFound
from bema.core.instance import Terms
from bema.core.naming import show_instance_id
from bema.deploy.launch.launcher import Event, Exited, Launcher
from bema.deploy.launch.workload import Workload
from bema.deploy.model.replica import Replica
from bema.deploy.model.stack import Profile, Stack
from bema.runtime.discovery.discovery import Discovery

Opener = Callable[[str], Awaitable[Launcher]]


class Launchers:
    """`opener` gives the launcher of a name; `default` is the name of the platform's own."""

    def __init__(self, opener: Opener, default: str, names: Iterable[str] = ()) -> None:
        """`names` are those that may have started what runs: they are opened before anything is polled."""
        self._opener = opener
        self._default = default
        self._named = {default, *(name for name in names if name)}
        self._opened: dict[str, Launcher] = {}
        self._opening = asyncio.Lock()
        self._owners: dict[int, Launcher] = {}
        self._coming: dict[str, asyncio.Task[Event]] = {}
        self._more = asyncio.Event()
        self._discovery: Discovery | None = None

    def meet(self, discovery: Discovery) -> None:
        self._discovery = discovery

    async def start(self, workload: Workload, instance: int) -> Replica:
        launcher = await self._of(workload.launcher or self._default)
        # before it is asked: the end of one that dies at once may come before the answer
        self._owners[instance] = launcher
        try:
            return await launcher.start(workload, instance)
        except BaseException:
            self._owners.pop(instance, None)
            raise

    async def stop(self, instance: int, grace: float, reason: str) -> None:
        if (launcher := self._owners.get(instance)) is not None:
            await launcher.stop(instance, grace, reason)

    async def drain(self, instance: int) -> None:
        if (launcher := self._owners.get(instance)) is not None:
            await launcher.drain(instance)

    async def route(self, instance: int, share: int, terms: Terms) -> None:
        if (launcher := self._owners.get(instance)) is not None:
            await launcher.route(instance, share, terms)

    async def poll(self) -> list[Replica]:
        found: list[Replica] = []
        # also those that nothing names any more: what they started may still run
        for name in tuple(self._named):
            launcher = await self._of(name)
            replicas = await launcher.poll()
            self._owners.update((replica.instance, launcher) for replica in replicas)
            found += replicas
        return found

    async def stack(self, instance: int) -> Stack:
        return await self._owner(instance).stack(instance)

    async def profile(self, instance: int, seconds: float, *, idle: bool = False) -> Profile:
        return await self._owner(instance).profile(instance, seconds, idle=idle)

    def _owner(self, instance: int) -> Launcher:
        if (launcher := self._owners.get(instance)) is None:
            raise NotFound(f"there is no instance {show_instance_id(instance)}")
        return launcher

    async def forget(self, deployment: str, version: str = "") -> None:
        for launcher in tuple(self._opened.values()):
            await launcher.forget(deployment, version)

    async def next_event(self) -> Event:
        for name in self._named:
            await self._of(name)
        while True:
            for name, launcher in self._opened.items():
                if name not in self._coming:
                    self._coming[name] = asyncio.ensure_future(launcher.next_event())
            self._more.clear()
            more = asyncio.ensure_future(self._more.wait())
            try:
                await asyncio.wait((*self._coming.values(), more), return_when=asyncio.FIRST_COMPLETED)
            finally:
                more.cancel()
            for name, coming in self._coming.items():
                if coming.done():
                    # asked again when the next event is asked for: then this one has been dealt with
                    del self._coming[name]
                    return self._told(coming.result())

    def _told(self, event: Event) -> Event:
        if isinstance(event, Exited):
            self._owners.pop(event.instance, None)
        return event

    async def _of(self, name: str) -> Launcher:
        async with self._opening:
            if name not in self._opened:
                launcher = await self._opener(name)
                if self._discovery is not None:
                    launcher.meet(self._discovery)
                self._opened[name] = launcher
                self._named.add(name)
                self._more.set()
            return self._opened[name]

    async def close(self) -> None:
        """Wait for no more events; what runs goes on running."""
        for coming in self._coming.values():
            coming.cancel()
        await asyncio.gather(*self._coming.values(), return_exceptions=True)

"""Launchers: start, poll and stop one instance; what happens to it arrives as events.

Here are the Protocol and its twin in memory; the launcher of processes is in `process.py`.

Law: a launcher never decides. It starts what it is told, says truthfully what became of it, and shows in Discovery the
instances that serve; the orchestrator makes instances equal deployments. Every start ends in exactly one `Exited`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from bema.core.clock import Clock, SystemClock
from bema.core.errors import Conflict, NotFound
from bema.core.instance import Instance, State, Terms, move
from bema.core.naming import show_instance_id
from bema.core.settings import PartSettings
from bema.core.version import VERSION
from bema.deploy.launch.workload import Workload
from bema.deploy.model.replica import Replica
from bema.deploy.model.stack import Profile, Stack
from bema.parts import Factory
from bema.runtime.discovery.discovery import Discovery
from bema.runtime.discovery.memory import MemoryDiscovery


class Announced(msgspec.Struct, frozen=True):
    """The instance serves; its record is in Discovery."""

    instance: int
    announce: dict[str, Any]
    ready: bool = True


class Reported(msgspec.Struct, frozen=True):
    """The instance serves otherwise than before, as it says itself; its record says so."""

    instance: int
    ready: bool
    stalled: bool
    stands: str = ""  # where, once that was found out

    def marked(self, replica: Replica) -> Replica:
        """The replica as it says."""
        return replica.marked(ready=self.ready, stalled=self.stalled, stands=self.stands)


class Exited(msgspec.Struct, frozen=True):
    """The instance is gone; the last event of it.

    `cause` is "stopped" (as asked), "exited" (by itself or by a signal) or "start_timeout" (killed: it never listened).
    `tail` holds its last log lines as records of the log.
    """

    instance: int
    code: int | None = None
    signal: int | None = None
    tail: list[dict[str, Any]] = []
    cause: str = "exited"
    message: str = ""


Event = Announced | Reported | Exited


class Launcher(Protocol):
    """Starts, polls and stops instances; what becomes of them arrives as events.

    What it needs to find an instance again, pids or the name of a pod, is its own: it keeps that where it outlives the
    orchestrator, and tells nobody.
    """

    def meet(self, discovery: Discovery) -> None:
        """Show what serves here, on the instances' behalf. Called once, before anything else."""
        ...

    async def start(self, workload: Workload, instance: int) -> Replica:
        """Start an instance and return at once, in state STARTING; one that does not serve in time is ended.

        `Failed` when it cannot be started; `Unavailable` while the platform stops, which is nobody's failure.
        """
        ...

    async def stop(self, instance: int, grace: float, reason: str) -> None:
        """Ask it to stop, kill it and all it started after `grace` seconds; returns at once, `Exited` follows."""
        ...

    async def route(self, instance: int, share: int, terms: Terms) -> None:
        """Show it with another share of the requests, or other terms; nothing where it is not known. `Refused` where it cannot be shown."""
        ...

    async def drain(self, instance: int) -> None:
        """Show that it takes nothing new, and let it run; nothing where it is not known."""
        ...

    async def poll(self) -> list[Replica]:
        """What runs now, those that an earlier orchestrator started among them."""
        ...

    async def forget(self, deployment: str, version: str = "") -> None:
        """Close what the deployment's instances had one after the other, their listeners; or those of one version."""
        ...

    async def stack(self, instance: int) -> Stack:
        """Where an instance's threads and tasks stand now.

        `NotFound` for one that is not there or cannot be asked, `Unavailable` for one that does not answer, `ProtocolError`
        for an answer that is none.
        """
        ...

    async def profile(self, instance: int, seconds: float, *, idle: bool = False) -> Profile:
        """Where an instance's time goes in the seconds to come; with `idle`, that of threads that wait too.

        Raises as `stack` does, `Invalid` for too many seconds, and `Conflict` while another profile of it is taken.
        """
        ...

    async def next_event(self) -> Event:
        """What happened next, to whichever instance. The event before it has been dealt with."""
        ...


class LauncherFactory(Factory[Launcher], group="bema.launcher", api=VERSION, default="process", opens="waiting"):
    """Opened by `open(settings)`, a coroutine, once per orchestrator; what an earlier one started it polls."""


LauncherFactory.register_lazy("process", "bema.deploy.launch.process:ProcessLauncher")

Outcome = Callable[["MemoryLauncher", int], None]


def serves(launcher: MemoryLauncher, instance: int) -> None:
    """An outcome: the instance announces at once."""
    launcher.announce(instance)


def hangs(launcher: MemoryLauncher, instance: int) -> None:
    """An outcome: the instance neither announces nor ends."""


def crashes(code: int = 1, *lines: str) -> Outcome:
    """An outcome: the instance ends at once with `code` after writing `lines`."""

    def outcome(launcher: MemoryLauncher, instance: int) -> None:
        launcher.end(instance, code=code, tail=[{"event": line, "stream": "stderr"} for line in lines])

    return outcome


@LauncherFactory.register("memory")
class MemoryLauncher:
    """The twin for tests: no processes; `outcomes` says by deployment name what becomes of a start (default: serves)."""

    def __init__(self, discovery: MemoryDiscovery | None = None, clock: Clock | None = None) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.started: list[Workload] = []
        self.instances: list[int] = []  # of `started`, in its order
        self.stopped: list[tuple[int, float, str]] = []
        self.forgotten: list[str] = []
        self.stacks: dict[int, Stack] = {}  # what is told of an instance
        self._replicas: dict[int, Replica] = {}
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._discovery = discovery
        self._clock = clock or SystemClock()

    @classmethod
    async def open(cls, settings: PartSettings) -> Launcher:
        return cls()

    def meet(self, discovery: Discovery) -> None:
        """There is nobody to be found where nothing runs, but in a discovery of this process."""
        if isinstance(discovery, MemoryDiscovery):
            self._discovery = discovery

    async def start(self, workload: Workload, instance: int) -> Replica:
        if instance in self._replicas:
            raise Conflict(f"instance {show_instance_id(instance)} runs already", code="already_served")
        self.started.append(workload)
        self.instances.append(instance)
        if self._discovery is not None:
            await self._discovery.reserve(instance)
        replica = self._replicas[instance] = Replica(
            instance=instance,
            deployment=workload.deployment,
            name=workload.name,
            version=workload.version,
            pid=len(self.started),
            listen=f"memory:{workload.deployment}.{workload.version}.{workload.slot}",
            state=State.STARTING,
            since=self._clock.now(),
            kind=workload.entry.kind,
            slot=workload.slot,
            share=workload.share,
            terms=workload.terms,
        )
        try:
            self.outcomes.get(workload.name, serves)(self, instance)
        except BaseException:
            # as a real one: a start that failed leaves nothing to be polled
            del self._replicas[instance]
            raise
        return replica

    async def stop(self, instance: int, grace: float, reason: str) -> None:
        self.stopped.append((instance, grace, reason))
        if instance in self._replicas:
            self.end(instance, code=0, cause="stopped")

    async def poll(self) -> list[Replica]:
        return list(self._replicas.values())

    async def drain(self, instance: int) -> None:
        if (replica := self._replicas.get(instance)) is not None:
            shown = replica.state is State.SERVING
            self._replicas[instance] = msgspec.structs.replace(replica, state=State.DRAINING)
            if shown:
                self._show(instance)

    async def route(self, instance: int, share: int, terms: Terms) -> None:
        if (replica := self._replicas.get(instance)) is None:
            return
        self._replicas[instance] = replica.routed(share, terms, self._clock.now())
        if replica.state is State.SERVING:
            self._show(instance)

    async def forget(self, deployment: str, version: str = "") -> None:
        self.forgotten.append(f"{deployment}/{version}" if version else deployment)

    async def stack(self, instance: int) -> Stack:
        replica = self._there(instance)
        return self.stacks.get(instance, Stack(instance=replica.label, version=replica.version))

    async def profile(self, instance: int, seconds: float, *, idle: bool = False) -> Profile:
        replica = self._there(instance)
        return Profile(instance=replica.label, version=replica.version)

    def _there(self, instance: int) -> Replica:
        if (replica := self._replicas.get(instance)) is None:
            raise NotFound(f"there is no instance {show_instance_id(instance)}")
        return replica

    async def next_event(self) -> Event:
        return await self._events.get()

    def announce(self, instance: int, announce: dict[str, Any] | None = None) -> None:
        """Let an instance announce itself."""
        replica = self._replicas[instance]
        move(replica.state, State.SERVING)
        said = announce or {"listen": replica.listen, "endpoints": []}
        self._replicas[instance] = replica.serving(said)
        self._show(instance)
        self._events.put_nowait(Announced(instance, said))

    def report(self, instance: int, *, ready: bool = True, stalled: bool = False) -> None:
        """Let an instance say how it serves."""
        self._replicas[instance] = self._replicas[instance].marked(ready=ready, stalled=stalled)
        self._show(instance)
        self._events.put_nowait(Reported(instance, ready, stalled))

    def _show(self, instance: int) -> None:
        replica = self._replicas[instance]
        if self._discovery is not None:
            self._discovery.put(
                Instance(
                    id=instance,
                    namespace="functions",
                    component=replica.name,
                    addresses={"http": (replica.listen,)},
                    deployment=replica.deployment,
                    version=replica.version,
                    pid=replica.pid,
                    since=replica.since,
                    ready=replica.ready,
                    stalled=replica.stalled,
                    state=replica.state,
                    share=replica.share,
                    terms=replica.terms,
                )
            )

    def end(self, instance: int, **how: Any) -> None:
        """Let an instance end; keywords are those of `Exited`."""
        del self._replicas[instance]
        if self._discovery is not None:
            self._discovery.drop(instance)
        self._events.put_nowait(Exited(instance, **how))

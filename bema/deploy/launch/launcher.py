"""Launchers: start, poll and stop one instance; what happens to it arrives as events.

Here are the Protocol and its twin in memory; the launcher of processes is in `launching.py`.

Law: a launcher never decides. It starts what it is told, says truthfully what became of it, and shows in Discovery the
instances that serve; the orchestrator makes instances equal deployments. Every start ends in exactly one `Exited`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from bema.core.clock import Clock, SystemClock
from bema.core.errors import Conflict
from bema.core.instance import Instance, State, move
from bema.core.naming import show_instance_id
from bema.core.settings import PartSettings
from bema.core.version import VERSION
from bema.deploy.model.deployment import Seen
from bema.parts import Factory
from bema.runtime.discovery.discovery import MemoryDiscovery


class LaunchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to start. `init` is the Init of the handshake; the launcher adds instance, listener, lease and token."""

    instance: int
    deployment: str
    name: str
    version: str
    argv: list[str]
    cwd: str
    kind: str = "main"  # service, app, mcp or main: what the script was found to hold
    env: dict[str, str] = {}
    init: dict[str, Any] = {}
    listen: str | None = None  # None: a Unix socket of the launcher's choice


class RunningInstance(msgspec.Struct, frozen=True, kw_only=True):
    """One process as the launcher knows it. `announce` is what it said of itself, or what was found from outside."""

    instance: int
    deployment: str
    name: str
    version: str
    pid: int
    process_start: int
    listen: str
    state: State
    since: int  # microseconds UTC
    kind: str = "main"
    announce: dict[str, Any] | None = None
    ready: bool = True  # what it says of itself
    stalled: bool = False

    def after(self, event: Announced | Reported) -> RunningInstance:
        """The same once it has said so."""
        if isinstance(event, Reported):
            return msgspec.structs.replace(self, ready=event.ready, stalled=event.stalled)
        return msgspec.structs.replace(self, state=State.SERVING, announce=event.announce, ready=event.ready)

    def seen(self) -> Seen:
        """It, as it is described with its deployment."""
        label, phases = show_instance_id(self.instance), (self.announce or {}).get("phases") or {}
        return Seen(
            self.instance, label, self.pid, self.state, self.since, phases, ready=self.ready, stalled=self.stalled
        )


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


class Line(msgspec.Struct, frozen=True):
    """The instance said something else on its module channel."""

    instance: int
    line: dict[str, Any]


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


Event = Announced | Reported | Line | Exited


class Launcher(Protocol):
    """Starts, polls and stops instances; what becomes of them arrives as events."""

    @classmethod
    async def open(cls, settings: PartSettings) -> Launcher:
        """The orchestrator's launcher; an instance that does not serve within the limit `start` is ended."""
        ...

    async def start(self, start: LaunchRequest) -> RunningInstance:
        """Start a process and return at once, in state STARTING.

        `Failed` when there can be no process; `Unavailable` while the platform stops, which is nobody's failure.
        """
        ...

    async def stop(self, instance: int, grace: float, reason: str) -> None:
        """Ask it to stop, kill its whole group after `grace` seconds; returns at once, `Exited` follows."""
        ...

    async def running(self) -> list[RunningInstance]:
        """What runs now, those that an earlier orchestrator started among them."""
        ...

    async def forget(self, deployment: str) -> None:
        """Close the listener that the deployment's instances shared."""
        ...

    async def next_event(self) -> Event:
        """What happened next, to whichever instance."""
        ...


class LauncherFactory(Factory[Launcher], group="bema.launcher", api=VERSION, default="process", opens="waiting"):
    """The launcher of an orchestrator is opened with `open`."""


LauncherFactory.register_lazy("process", "bema.deploy.launch.process:ProcessLauncher")

Outcome = Callable[["MemoryLauncher", LaunchRequest], None]


def serves(launcher: MemoryLauncher, start: LaunchRequest) -> None:
    """An outcome: the instance announces at once."""
    launcher.announce(start.instance)


def hangs(launcher: MemoryLauncher, start: LaunchRequest) -> None:
    """An outcome: the instance neither announces nor ends."""


def crashes(code: int = 1, *lines: str) -> Outcome:
    """An outcome: the instance ends at once with `code` after writing `lines`."""

    def outcome(launcher: MemoryLauncher, start: LaunchRequest) -> None:
        launcher.end(start.instance, code=code, tail=[{"event": line, "stream": "stderr"} for line in lines])

    return outcome


@LauncherFactory.register("memory")
class MemoryLauncher:
    """The twin for tests: no processes; `outcomes` says by deployment name what becomes of a start (default: serves)."""

    def __init__(self, discovery: MemoryDiscovery | None = None, clock: Clock | None = None) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.started: list[LaunchRequest] = []
        self.stopped: list[tuple[int, float, str]] = []
        self.forgotten: list[str] = []
        self._running: dict[int, RunningInstance] = {}
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._discovery = discovery
        self._clock = clock or SystemClock()

    @classmethod
    async def open(cls, settings: PartSettings) -> Launcher:
        return cls()

    async def start(self, start: LaunchRequest) -> RunningInstance:
        if start.instance in self._running:
            raise Conflict(f"instance {start.instance} runs already", code="already_served")
        self.started.append(start)
        running = RunningInstance(
            instance=start.instance,
            deployment=start.deployment,
            name=start.name,
            version=start.version,
            pid=len(self.started),
            process_start=len(self.started),
            listen=start.listen or f"memory:{start.deployment}",
            state=State.STARTING,
            since=self._clock.now(),
            kind=start.kind,
        )
        self._running[start.instance] = running
        self.outcomes.get(start.name, serves)(self, start)
        return running

    async def stop(self, instance: int, grace: float, reason: str) -> None:
        self.stopped.append((instance, grace, reason))
        if instance in self._running:
            self.end(instance, code=0, cause="stopped")

    async def running(self) -> list[RunningInstance]:
        return list(self._running.values())

    async def forget(self, deployment: str) -> None:
        self.forgotten.append(deployment)

    async def next_event(self) -> Event:
        return await self._events.get()

    def announce(self, instance: int, announce: dict[str, Any] | None = None) -> None:
        """Let an instance announce itself."""
        running = self._running[instance]
        said = announce or {"listen": running.listen, "endpoints": []}
        self._running[instance] = msgspec.structs.replace(
            running, state=move(running.state, State.SERVING), announce=said
        )
        self._show(instance)
        self._events.put_nowait(Announced(instance, said))

    def report(self, instance: int, *, ready: bool = True, stalled: bool = False) -> None:
        """Let an instance say how it serves."""
        self._running[instance] = msgspec.structs.replace(self._running[instance], ready=ready, stalled=stalled)
        self._show(instance)
        self._events.put_nowait(Reported(instance, ready, stalled))

    def _show(self, instance: int) -> None:
        running = self._running[instance]
        if self._discovery is not None:
            self._discovery.put(
                Instance(
                    id=instance,
                    namespace="functions",
                    component=running.name,
                    addresses={"http": (running.listen,)},
                    deployment=running.deployment,
                    version=running.version,
                    pid=running.pid,
                    since=running.since,
                    ready=running.ready,
                    stalled=running.stalled,
                )
            )

    def end(self, instance: int, **how: Any) -> None:
        """Let an instance end; keywords are those of `Exited`."""
        del self._running[instance]
        if self._discovery is not None:
            self._discovery.drop(instance)
        self._events.put_nowait(Exited(instance, **how))

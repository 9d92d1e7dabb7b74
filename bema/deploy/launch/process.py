"""The launcher of processes: it asks the keeper, and stands between an instance and Discovery.

A deployed instance never touches Discovery itself. It is reserved before it is started and the lease is handed to it, so
that its life is the lease; what is shown of it is written when it serves, says DRAINING before it is asked to stop, and
goes when it has gone. What the next orchestrator needs to take charge of it again, the locator, lies with the keeper.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from pathlib import Path
from typing import Any

import msgspec

from bema.core.clock import Clock, SystemClock
from bema.core.errors import BemaError, Disconnected, NotFound, ProtocolError, Refused
from bema.core.instance import Instance, State, Terms
from bema.core.limits import DEFAULTS, Limits
from bema.core.naming import show_instance_id
from bema.core.paths import state_dir
from bema.core.redaction import hides
from bema.core.settings import PartSettings
from bema.deploy.keeper.redaction import told
from bema.deploy.launch import disk_quota, inspection, isolation, operations
from bema.deploy.launch.inspection import InspectionSockets
from bema.deploy.launch.keeper_client import KeeperClient
from bema.deploy.launch.launcher import Announced, Event, Exited, Reported
from bema.deploy.launch.open_ports import free_port, listener_of, moves, socket_of, sockets_of
from bema.deploy.launch.operations import OperationSockets
from bema.deploy.launch.sandbox import Home, environment
from bema.deploy.launch.supervision import Supervision, found_at
from bema.deploy.launch.workload import Workload
from bema.deploy.model.replica import Replica
from bema.deploy.model.stack import Profile, Stack
from bema.deploy.secrets import sealed
from bema.runtime.discovery.discovery import Discovery, Reservation
from bema.wire.module.handshake import FEATURES

HOST = "bema.sdk.host:run"
RUNNER = Path("bema", "runner", "__main__.py")
_BEFORE = 1.0  # seconds before the end of its grace at which an instance is looked at that will be killed then

logger = logging.getLogger(__name__)


class Locator(msgspec.Struct, frozen=True, kw_only=True):
    """What the keeper keeps of an instance for whoever takes charge of it next."""

    name: str
    version: str
    kind: str
    token: str  # of its RPC socket
    start_limit: float
    port: int | None = None  # the one that a program was asked to use
    slot: int = 0
    share: int = 100  # as it was started
    terms: Terms = Terms()
    script: str = ""  # its file
    stalled_limit: float = DEFAULTS.stalled
    isolation: dict[str, Any] = {}  # what it has entered, if it serves
    folders: tuple[str, ...] = ()  # what it may write, `disk` bytes of it
    disk: int = 0
    __repr__ = hides("token")


class SupervisedProcess:
    """One instance in this launcher's charge: how it is, and what is shown of it."""

    def __init__(self, supervision: Supervision, locator: Locator, reservation: Reservation) -> None:
        self.supervision = supervision
        self.locator = locator
        self.reservation = reservation
        self.waiting: asyncio.Task[None] | None = None  # for it to serve
        self.looking: asyncio.Task[None] | None = None  # for where it stands
        self.measuring: asyncio.Task[None] | None = None  # what it writes

    @property
    def replica(self) -> Replica:
        return self.supervision.replica

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        return [task for task in (self.waiting, self.looking, self.measuring) if task is not None]

    def stop_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()

    def stop_looking(self) -> None:
        if self.looking is not None:
            self.looking.cancel()


class ProcessLauncher:
    """Launches through the keeper; `meet` says in which discovery what serves is shown."""

    _discovery: Discovery

    def __init__(
        self,
        keeper: KeeperClient,
        *,
        clock: Clock | None = None,
        sockets: OperationSockets | None = None,
        limits: Limits = DEFAULTS,
    ) -> None:
        self._keeper = keeper
        self._operations = sockets or OperationSockets(keeper, {})
        self._inspections = InspectionSockets(keeper)
        self._limits = limits
        self._clock = clock or SystemClock()
        self._known: dict[int, SupervisedProcess] = {}
        self._unseen: int | None = None
        # what the keeper lists and the ends that it tells must be taken in the order in which it said them
        self._taking = asyncio.Lock()

    @classmethod
    async def open(cls, settings: PartSettings) -> ProcessLauncher:
        return cls(await KeeperClient.open(), limits=settings.limits)

    def meet(self, discovery: Discovery) -> None:
        self._discovery = discovery

    async def start(self, workload: Workload, instance: int) -> Replica:
        home = Home(state_dir() / "homes" / (workload.home or workload.deployment))
        home.prepare()
        program = workload.entry.kind == "main"
        port = free_port() if program else None
        files = Path(workload.script).parents[len(Path(workload.entry.file).parts) - 1]
        own = [workload.environment.layer, str(files)]
        sandbox = isolation.wanted(workload.isolation, home, own, workload.limits.bounds)
        locator = Locator(
            name=workload.name,
            version=workload.version,
            kind=workload.entry.kind,
            token=secrets.token_urlsafe(32),
            start_limit=workload.limits.start,
            port=port,
            slot=workload.slot,
            share=workload.share,
            terms=workload.terms,
            script=workload.script,
            stalled_limit=float(workload.settings.get("limits.stalled", self._limits.stalled)),
            isolation=isolation.shown(sandbox),
            folders=() if sandbox is None else (str(home.home), str(home.tmp)),
            disk=workload.limits.bounds.disk,
        )
        # before the process: a lease that could not be had afterwards would leave one that nobody
        # finds
        reservation = await self._discovery.reserve(instance)
        try:
            with contextlib.ExitStack() as passing:
                passed = _lease(reservation, program=program)
                if workload.secrets:
                    passed["secrets_fd"] = passing.enter_context(sealed(workload.secrets))
                if workload.operations:
                    passed |= await self._operations.begin(instance, passing)
                passed |= self._inspections.begin(instance, passing)
                init = _init(workload, instance, locator) | ({} if sandbox is None else {"sandbox": sandbox})
                answer = await self._spawn(workload, instance, locator, home, passed, init)
        except BaseException:
            # cancelled too: a reservation that stays would be shown to nobody and held for ever
            await self._operations.end(instance)
            self._inspections.end(instance)
            await reservation.release()
            raise
        known = {"instance": instance, "deployment": workload.deployment, "announce": None, "status": None}
        process = self._take_charge({**known, **answer}, locator, reservation)
        # our copy of the lease goes: from here on its life is the instance's, not ours
        await reservation.hand_over()
        return process.replica

    async def _spawn(
        self,
        workload: Workload,
        instance: int,
        locator: Locator,
        home: Home,
        passed: dict[str, int],
        init: dict[str, Any],
    ) -> dict[str, Any]:
        """Ask for the process. It inherits what is named as a field of Init, `..._fd`; the keeper keeps the rest."""
        return await self._keeper.request(
            "spawn",
            descriptors=passed,
            inherit=[name for name in passed if name.endswith("_fd")],
            keep=[name for name in passed if not name.endswith("_fd")],
            instance=instance,
            deployment=workload.deployment,
            name=workload.name,
            version=workload.version,
            # -I ignores PYTHONUNBUFFERED: without -u a line waits in the process until it has thousands of others
            argv=[workload.environment.python, "-I", "-u", str(Path(workload.environment.layer) / RUNNER)],
            env=environment(home, workload.env),
            cwd=str(home.home),
            init=init,
            redact=told(workload.secrets.values()) if workload.secrets else None,
            slot=f"{workload.deployment}/{workload.version}/{workload.slot}",
            listen=None
            if locator.port is not None
            else f"unix:{socket_of(workload.deployment, workload.version, workload.slot)}",
            locator=msgspec.to_builtins(locator),
        )

    async def poll(self) -> list[Replica]:
        # an end that came between the list and its reading would be taken for a live instance
        async with self._taking:
            for kept in (await self._keeper.request("list"))["instances"]:
                if kept["instance"] not in self._known:
                    await self._adopt(kept)
        return [process.replica for process in self._known.values()]

    async def _adopt(self, kept: dict[str, Any]) -> None:
        """Take charge of a process that an earlier orchestrator started."""
        locator = msgspec.convert(kept["locator"], Locator)
        reservation = await self._discovery.adopt(kept["instance"])
        shown = reservation.shown
        leaving = kept["stopping"] or (shown is not None and shown.state is State.DRAINING)
        process = self._take_charge(kept, locator, reservation)
        if inspection.NAME in kept["keep"]:
            await self._inspections.resume(kept["instance"])
        if kept["status"] is not None:
            await self._told(process, kept["status"])
            self._recall(process)
        if kept["announce"] is not None:
            # what drained is not shown otherwise for a moment, in which somebody might send it something
            await self._show(process, kept["announce"], hidden=leaving)
            self._watch_program(process, kept["announce"])
        if leaving:
            await self._hide(process)
        if operations.NAME in kept["keep"]:
            await self._operations.resume(kept["instance"])

    def _take_charge(self, kept: dict[str, Any], locator: Locator, reservation: Reservation) -> SupervisedProcess:
        replica = Replica(
            instance=kept["instance"],
            deployment=kept["deployment"],
            version=locator.version,
            state=State.STARTING,
            since=kept["since"],
            name=locator.name,
            kind=locator.kind,
            pid=kept["pid"],
            listen=kept["listen"] or "",
            slot=locator.slot,
            share=locator.share,
            terms=locator.terms,
        )
        # what it was shown with by an orchestrator that is gone
        if (shown := reservation.shown) is not None:
            replica = replica.routed(shown.share, shown.terms, self._clock.now())
        supervision = Supervision(
            replica, process_start=kept["process_start"], token=locator.token, isolation=locator.isolation
        )
        process = self._known[replica.instance] = SupervisedProcess(supervision, locator, reservation)
        if kept["announce"] is None:
            waiting = self._await_start(process)
            process.waiting = asyncio.create_task(waiting, name=f"start of {replica.instance}")
        if locator.folders:
            process.measuring = asyncio.create_task(self._measure(process), name=f"disk of {replica.instance}")
        return process

    async def _measure(self, process: SupervisedProcess) -> None:
        """End it when it has written more than it may."""
        most = process.locator.disk
        await disk_quota.passed(map(Path, process.locator.folders), most, disk_quota.EVERY)
        how = f"it has more than {most:,} bytes in HOME and TMPDIR (limits.instance_disk), or folders that nobody may list"
        await self._end(process, "disk_quota", how)

    async def _await_start(self, process: SupervisedProcess) -> None:
        """Until it listens, or the start limit: from then on its end is a failed start."""
        replica, limit = process.replica, process.locator.start_limit
        # counted from its start: an orchestrator that dies must not give it its time anew
        passed = (self._clock.now() - replica.since) / 1_000_000
        try:
            async with asyncio.timeout(max(0.0, limit - passed)):
                if replica.kind != "main":
                    await asyncio.get_running_loop().create_future()
                address = await listener_of(replica.pid, process.locator.port)
        except TimeoutError:
            how, where = f"it did not listen within {limit:g} s", await self._where(process)
            await self._end(process, "start_timeout", f"{how}: it stood in {where}" if where else how)
            return
        announce = found_at(address, {"listen": (self._clock.now() - replica.since) // 1000})
        await self._keeper.request("announced", instance=replica.instance, announce=announce)
        # the keeper only remembers it; told to ourselves, it goes the way of every announcement
        self._keeper.events.put_nowait({"event": "announced", "instance": replica.instance, "announce": announce})

    def _watch_program(self, process: SupervisedProcess, announce: dict[str, Any]) -> None:
        """A program says nothing of itself while it serves: where it listens is looked at, as long as it lives."""
        found = (announce.get("addresses") or {}).get("http")
        if announce.get("kind") == "main" and found:
            watching = self._follow(process, found[0], announce)
            process.waiting = asyncio.create_task(watching, name=f"listener of {process.replica.instance}")

    async def _follow(self, process: SupervisedProcess, address: str, announce: dict[str, Any]) -> None:
        """It is given up at an address other than PORT when PORT comes, and takes no calls while its listener is closed."""
        instance, known = process.replica.instance, address
        async for now, accepts in moves(process.replica.pid, _asked_port(process, announce), address):
            if now != known:
                known, announce = now, found_at(now, announce.get("phases") or {})
                await self._keeper.request("announced", instance=instance, announce=announce)
                record = process.supervision.moved(announce)
                if record is not None:
                    await process.reservation.update(record)
            if accepts is not process.replica.ready:
                self._keeper.events.put_nowait({"event": "status", "instance": instance, "status": {"ready": accepts}})

    async def _end(self, process: SupervisedProcess, cause: str, how: str) -> None:
        # noted before: its end comes by itself, and would read as a crash of its own
        process.supervision.fault = (cause, how)
        await self._note(process, how, "error")
        with contextlib.suppress(Disconnected):
            await self._keeper.request("stop", instance=process.replica.instance, grace_ms=0, reason=how)

    async def _show(self, process: SupervisedProcess, announce: dict[str, Any], *, hidden: bool = False) -> None:
        shown = process.reservation.shown  # by an orchestrator that is gone
        record = process.supervision.announced(announce, self._clock.now() if shown is None else shown.since)
        if not hidden:
            await process.reservation.update(record)

    async def _told(self, process: SupervisedProcess, status: dict[str, Any]) -> bool:
        """Take in how it serves now, and show it; whether anything that is shown is new."""
        stalled = process.replica.stalled
        try:
            record = process.supervision.told(status)
        except ProtocolError as error:
            logger.warning("instance %s: %s; it is skipped", process.replica.label, error.message)
            return False
        if process.replica.stalled and not stalled:
            process.stop_looking()
            process.looking = asyncio.create_task(self._look(process), name=f"look at {process.replica.instance}")
        if record is None:
            return False
        await self._update(process, record)
        return True

    async def _update(self, process: SupervisedProcess, record: Instance) -> None:
        try:
            await process.reservation.update(record)
        except Refused as error:  # a mark that stayed on a full disk would keep callers away for good
            logger.error("%s; trying again", error.message)

    async def _hide(self, process: SupervisedProcess) -> None:
        record = process.supervision.draining()
        if record is not None:
            with contextlib.suppress(Refused):  # a full disk keeps no instance alive
                await process.reservation.update(record)

    # where it stands

    async def stack(self, instance: int) -> Stack:
        process = self._there(instance)
        return await self._inspections.stack(process.replica, process.supervision.process_start, process.locator.script)

    async def profile(self, instance: int, seconds: float, *, idle: bool = False) -> Profile:
        return await self._inspections.profile(self._there(instance).replica, seconds, idle=idle)

    def _there(self, instance: int) -> SupervisedProcess:
        if (process := self._known.get(instance)) is None:
            raise NotFound(f"there is no instance {show_instance_id(instance)}")
        return process

    async def _where(self, process: SupervisedProcess) -> str:
        """Where it stands, in a few words; empty where that is not to be had."""
        try:
            return (await self.stack(process.replica.instance)).where()
        except BemaError as error:
            logger.info("instance %s: %s", process.replica.label, error.message)
            return ""

    async def _look(self, process: SupervisedProcess) -> None:
        """It is stalled: find out where, show it and write it into its log."""
        since = time.monotonic() - process.locator.stalled_limit
        if where := await self._where(process):
            stands = f"stalled {time.monotonic() - since:.1f} s in {where}"
            await self._note(process, stands, "warning")
            # the way of every event: what is shown of it is changed by one at a time
            self._keeper.events.put_nowait({"event": "stands", "instance": process.replica.instance, "stands": stands})

    def _recall(self, process: SupervisedProcess) -> None:
        """What an earlier orchestrator found out: it knew since when, so nobody looks again."""
        shown = process.reservation.shown
        if shown is not None and (stands := str(shown.data.get("stands", ""))):
            process.stop_looking()
            process.supervision.stands(stands)

    async def _look_before_the_end(self, process: SupervisedProcess, grace: float) -> None:
        """Whoever is killed at the end of its grace is looked at shortly before: afterwards there is nothing to see."""
        await asyncio.sleep(grace - min(_BEFORE, grace / 2))
        if where := await self._where(process):
            process.supervision.stood = where
            await self._note(process, f"it does not end within {grace:g} s: it stands in {where}", "warning")

    async def _note(self, process: SupervisedProcess, text: str, level: str) -> None:
        with contextlib.suppress(BemaError):  # the log is not what anything waits for
            await self._keeper.request("note", instance=process.replica.instance, text=text, level=level)

    async def stop(self, instance: int, grace: float, reason: str) -> None:
        process = self._known.get(instance)
        if process is not None:
            process.stop_looking()
            if grace > 0:
                looking = self._look_before_the_end(process, grace)
                process.looking = asyncio.create_task(looking, name=f"last look at {instance}")
            # hidden first: callers must have gone elsewhere when it begins to refuse
            await self._hide(process)
            await self._keeper.request("stop", instance=instance, grace_ms=round(grace * 1000), reason=reason)

    async def drain(self, instance: int) -> None:
        if (process := self._known.get(instance)) is not None:
            await self._hide(process)

    async def route(self, instance: int, share: int, terms: Terms) -> None:
        if (process := self._known.get(instance)) is None:
            return
        before, now = process.replica, self._clock.now()
        record = process.supervision.routed(share, terms, now)
        try:
            if record is not None:
                await process.reservation.update(record)
        except Refused:
            process.supervision.routed(before.share, before.terms, now)
            raise

    async def forget(self, deployment: str, version: str = "") -> None:
        await self._keeper.request("forget", deployment=deployment, version=version)
        # the keeper removes what it opened; of one before it, that was killed, this one may not know
        for path in [] if version else sockets_of(deployment):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    async def next_event(self) -> Event:
        """The next event; an end is the keeper's to tell again until the one after it is asked for."""
        # only now: had we died while dealing with it, the next orchestrator would be told of it
        if self._unseen is not None:
            await self._keeper.request("seen", instance=self._unseen)
            self._unseen = None
        while True:
            message = await self._keeper.events.get()
            if message is None:
                raise Disconnected("the keeper is gone")
            async with self._taking:
                event = await self._event(message)
            if event is not None:
                return event

    async def _event(self, message: dict[str, Any]) -> Event | None:
        instance, process = message["instance"], self._known.get(message["instance"])
        match message["event"]:
            case "exited":
                self._unseen = instance
                return await self._exited(process, message)
            case "announced" if process is not None and process.replica.state is State.STARTING:
                return await self._announced(process, message)
            case "status" if process is not None and await self._told(process, message["status"]):
                return Reported(instance, process.replica.ready, process.replica.stalled, process.replica.stands)
            case "stands" if process is not None and process.replica.stalled:
                if (record := process.supervision.stands(message["stands"])) is not None:
                    await self._update(process, record)
                return Reported(instance, process.replica.ready, process.replica.stalled, process.replica.stands)
        return None

    async def _announced(self, process: SupervisedProcess, message: dict[str, Any]) -> Event | None:
        process.stop_waiting()
        if (status := message.get("status")) is not None:
            await self._told(process, status)
        try:
            await self._show(process, message["announce"])
        except (ProtocolError, Refused) as error:
            await self._end(process, "exited", error.message)
            return None
        self._watch_program(process, message["announce"])
        return Announced(message["instance"], message["announce"], process.replica.ready)

    async def _exited(self, process: SupervisedProcess | None, message: dict[str, Any]) -> Exited:
        instance, stopped = message["instance"], message["stopped"]
        await self._operations.end(instance)
        self._inspections.end(instance)
        cause, how = "stopped" if stopped else "exited", ""
        self._known.pop(instance, None)
        if process is None:  # it ended while there was no orchestrator
            # its record may lie there still; where a lease is no lock, nobody else takes it away
            reservation = await self._discovery.adopt(instance)
        else:
            for task in process.tasks:
                task.cancel()
            reservation = process.reservation
            cause, how = process.supervision.ended(message["code"], message["signal"], stopped=stopped)
        await reservation.release()
        return Exited(instance, message["code"], message["signal"], message["tail"], cause, how)

    async def close(self) -> None:
        """Let go of the link; what runs goes on running."""
        waiting = [task for process in self._known.values() for task in process.tasks]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._operations.close()
        self._inspections.close()
        await self._keeper.close()


def _asked_port(process: SupervisedProcess, announce: dict[str, Any]) -> int | None:
    """The port that a program was asked to use: by us, or by its runner where we took it for an app."""
    if process.locator.kind == "main":
        return process.locator.port
    port = str(announce.get("listen", "")).rpartition(":")[2]
    return int(port) if port.isdecimal() else None


def _lease(reservation: Reservation, *, program: bool) -> dict[str, int]:
    """What holds the lease, where there is such, by the name under which it is passed.

    A program does not know of its lease and may close all that it did not open: then the keeper holds it.
    """
    return {} if reservation.descriptor is None else {"lease" if program else "lease_fd": reservation.descriptor}


def _init(workload: Workload, instance: int, locator: Locator) -> dict[str, Any]:
    label = show_instance_id(instance)
    return {
        "orchestrator_api": "",
        "module_id": label,
        "env": workload.env,
        "features": list(FEATURES),
        "listen": "" if locator.port is None else f"127.0.0.1:{locator.port}",
        "instance": label,
        "deployment": workload.deployment,
        "name": workload.name,
        "version": workload.version,
        "auth_token": locator.token,
        "registers": False,
        "script": workload.script,
        "entry": {"kind": workload.entry.kind, "name": workload.entry.name},
        "platform": workload.environment.layer,
        "host": HOST,
        "drain_ms": round(workload.limits.drain * 1000),
        "settings": workload.settings,
    }

"""The launcher of processes: it asks the keeper, and stands between an instance and Discovery.

A deployed instance never touches Discovery itself: its record is written when it serves, says DRAINING before it is asked
to stop, and goes when it has gone; the lock beside the record is the instance's own for life. What it says of itself while
it serves is shown until it says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import Any

from bema.core.clock import Clock, SystemClock
from bema.core.errors import Disconnected, ProtocolError, Refused
from bema.core.instance import State
from bema.core.limits import DEFAULTS
from bema.core.naming import show_instance_id
from bema.core.paths import discovery_dir, state_dir
from bema.core.settings import PartSettings
from bema.deploy.launch.keeper_client import KeeperClient
from bema.deploy.launch.launcher import Announced, Event, Exited, LaunchRequest, Line, Reported, RunningInstance
from bema.deploy.launch.open_ports import free_port, listener_of, port_of, socket_of
from bema.deploy.launch.sandbox import Home, environment
from bema.deploy.launch.supervision import Supervised, found_at
from bema.runtime.discovery import records
from bema.wire.module.handshake import FEATURES

logger = logging.getLogger(__name__)

_AGAIN = 1.0
"""Seconds until a record that could not be written is written again."""


class ProcessLauncher:
    """Launches through the keeper, and shows what serves in the discovery folder in the instances' stead."""

    def __init__(
        self, keeping: KeeperClient, *, clock: Clock | None = None, start_limit: float = DEFAULTS.start
    ) -> None:
        self._keeping = keeping
        self._clock = clock or SystemClock()
        self._start_limit = start_limit
        self._discovery = discovery_dir()
        self._known: dict[int, Supervised] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._unwritten: dict[int, asyncio.TimerHandle] = {}
        self._unseen: int | None = None

    @classmethod
    async def open(cls, settings: PartSettings) -> ProcessLauncher:
        return cls(await KeeperClient.open(), start_limit=settings.limits.start)

    async def start(self, start: LaunchRequest) -> RunningInstance:
        await asyncio.to_thread(records.prepare, self._discovery)
        home = Home(state_dir() / "homes" / start.deployment)
        home.prepare()
        label = show_instance_id(start.instance)
        program = start.kind == "main"
        init = {
            "orchestrator_api": "",
            "module_id": label,
            "env": start.env,
            "features": list(FEATURES),
            "listen": start.listen or (f"127.0.0.1:{free_port()}" if program else ""),
            "entry": {"kind": start.kind, "name": ""},
            **start.init,
            "instance": label,
            "deployment": start.deployment,
            "name": start.name,
            "version": start.version,
            "auth_token": secrets.token_urlsafe(32),
        }
        listen = None if program else start.listen or f"unix:{socket_of(start.deployment)}"
        answer = await self._keeping.request(
            "spawn",
            instance=start.instance,
            deployment=start.deployment,
            name=start.name,
            version=start.version,
            argv=start.argv,
            env=environment(home, start.env),
            cwd=start.cwd,
            init=init,
            listen=listen,
            lease=str(records.lock_path(self._discovery, start.instance)),
        )
        self._adopt({**answer, "instance": start.instance, "init": init, "since": self._clock.now()})
        return self._running(start.instance)

    def _adopt(self, kept: dict[str, Any]) -> None:
        """Take charge of a process that the keeper holds, whoever started it."""
        instance, announce = kept["instance"], kept.get("announce")
        seen = self._known[instance] = Supervised(
            instance,
            kept["init"],
            pid=kept["pid"],
            process_start=kept["process_start"],
            listen=kept["listen"] or "",
            since=kept["since"],
        )
        self._told(seen, kept.get("status"))
        if announce is not None:
            self._show(seen, announce)
        else:
            self._tasks[instance] = asyncio.create_task(self._await_start(seen), name=f"start of {instance}")
        if kept.get("stopping"):
            self._hide(seen)

    async def _await_start(self, seen: Supervised) -> None:
        """Until it listens, or the start limit: from then on its end is a failed start."""
        passed = (self._clock.now() - seen.since) / 1_000_000
        try:
            async with asyncio.timeout(max(0.0, self._start_limit - passed)):
                if seen.kind != "main":
                    await asyncio.get_running_loop().create_future()
                address = await listener_of(seen.pid, port_of(seen.init["listen"]))
        except TimeoutError:
            await self._end(seen, "start_timeout", f"it did not listen within {self._start_limit:g} s")
            return
        announce = found_at(address, {"listen": (self._clock.now() - seen.since) // 1000})
        await self._keeping.request("announced", instance=seen.instance, announce=announce)
        self._keeping.events.put_nowait({"event": "announced", "instance": seen.instance, "announce": announce})

    async def _end(self, seen: Supervised, cause: str, how: str) -> None:
        seen.fault = (cause, how)
        with contextlib.suppress(Disconnected):
            await self._keeping.request("stop", instance=seen.instance, grace_ms=0, reason=how)

    def _show(self, seen: Supervised, announce: dict[str, Any]) -> None:
        since = self._clock.now()
        with contextlib.suppress(ValueError):  # it was shown before, by an orchestrator that is gone
            if (shown := records.read_record(self._discovery, show_instance_id(seen.instance))) is not None:
                since = shown.since
        records.write_record(self._discovery, seen.announced(announce, since))

    def _told(self, seen: Supervised, status: dict[str, Any] | None) -> bool:
        """Take in how it serves now, and show it; whether anything of it is new."""
        try:
            record = None if status is None else seen.told(status)
        except ProtocolError as error:
            logger.warning("instance %s: %s; it is skipped", show_instance_id(seen.instance), error.message)
            return False
        if record is not None:
            self._write(seen)
        return record is not None

    def _write(self, seen: Supervised) -> None:
        """Show the record as it is now; a mark that stayed on a full disk would keep callers away for good."""
        if (late := self._unwritten.pop(seen.instance, None)) is not None:
            late.cancel()
        if (record := seen.record) is None:
            return
        try:
            records.write_record(self._discovery, record)
        except Refused as error:
            logger.error("%s; trying again", error.message)
            again = asyncio.get_running_loop().call_later(_AGAIN, self._write, seen)
            self._unwritten[seen.instance] = again

    def _hide(self, seen: Supervised) -> None:
        record = seen.draining()
        if record is not None:
            with contextlib.suppress(Refused):  # a full disk keeps no instance alive
                records.write_record(self._discovery, record)

    async def stop(self, instance: int, grace: float, reason: str) -> None:
        seen = self._known.get(instance)
        if seen is not None:
            self._hide(seen)
            await self._keeping.request("stop", instance=instance, grace_ms=round(grace * 1000), reason=reason)

    async def running(self) -> list[RunningInstance]:
        for kept in (await self._keeping.request("list"))["instances"]:
            if kept["instance"] not in self._known:
                self._adopt(kept)
        return [self._running(instance) for instance in self._known]

    def _running(self, instance: int) -> RunningInstance:
        seen = self._known[instance]
        return RunningInstance(
            instance=instance,
            deployment=seen.init["deployment"],
            name=seen.init["name"],
            version=seen.init["version"],
            pid=seen.pid,
            process_start=seen.process_start,
            listen=seen.listen,
            state=seen.state,
            since=seen.since,
            kind=seen.kind,
            announce=seen.announce,
            ready=seen.ready,
            stalled=seen.stalled,
        )

    async def forget(self, deployment: str) -> None:
        await self._keeping.request("forget", deployment=deployment)

    async def next_event(self) -> Event:
        """The next event; an end is the keeper's to tell again until the one after it is asked for."""
        if self._unseen is not None:
            await self._keeping.request("seen", instance=self._unseen)
            self._unseen = None
        while True:
            message = await self._keeping.events.get()
            if message is None:
                raise Disconnected("the keeper is gone")
            if (event := await self._event(message)) is not None:
                return event

    async def _event(self, message: dict[str, Any]) -> Event | None:
        instance, seen = message["instance"], self._known.get(message["instance"])
        match message["event"]:
            case "exited":
                self._unseen = instance
                return self._exited(seen, message)
            case "line":
                return Line(instance, message["line"])
            case "announced" if seen is not None and seen.state is State.STARTING:
                self._cancel_start(instance)
                self._told(seen, message.get("status"))
                try:
                    self._show(seen, message["announce"])
                except (ProtocolError, Refused) as error:
                    await self._end(seen, "exited", error.message)
                    return None
                return Announced(instance, message["announce"], seen.ready)
            case "status" if seen is not None and self._told(seen, message["status"]):
                return Reported(instance, seen.ready, seen.stalled)
        return None

    def _exited(self, seen: Supervised | None, message: dict[str, Any]) -> Exited:
        instance = message["instance"]
        self._cancel_start(instance)
        self._known.pop(instance, None)
        if (late := self._unwritten.pop(instance, None)) is not None:
            late.cancel()
        records.remove_record(self._discovery, instance)
        cause, how = "stopped" if message["stopped"] else "exited", ""
        if seen is not None:
            cause, how = seen.ended(message["code"], message["signal"], stopped=message["stopped"])
        return Exited(instance, message["code"], message["signal"], message["tail"], cause, how)

    def _cancel_start(self, instance: int) -> None:
        if task := self._tasks.pop(instance, None):
            task.cancel()

    async def close(self) -> None:
        """Let go of the link; what runs goes on running."""
        for late in self._unwritten.values():
            late.cancel()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._keeping.close()

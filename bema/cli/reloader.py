"""Reloader: runs a service while its author edits it, one process per version, and replaces each by the next.

Laws: the next version starts beside the one that serves. When it serves, the old one is told to stop and finishes its calls;
when it fails to start, its output says why and the old one goes on. Every process has the channel of a launcher, whose end
means Stop, so that no process outlives this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from bema.cli.file_watcher import Watch
from bema.core import settings
from bema.core.errors import BemaError
from bema.core.instance import DEV
from bema.runtime.process.inheritance import VARIABLE
from bema.runtime.tasks import Tasks
from bema.wire.module.envelopes import read_from_module
from bema.wire.module.handshake import Announce, Init, Stop, default_init, encode

GRACE = 5.0  # beyond the drain, before a process that was told to stop is killed


class ReloadedVersion:
    """One process of the service, which runs one version of its file."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self.announce: asyncio.Future[Announce | None] = asyncio.get_running_loop().create_future()
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, arguments: list[str], passed: Mapping[str, int]) -> ReloadedVersion:
        """Start `bema run ARGUMENTS` with the channel of a launcher. `passed` are further descriptors by their variables."""
        # in a process group of its own: Ctrl-C goes to the terminal's group, and must reach it through us alone
        ours, theirs = socket.socketpair()
        with theirs:
            given = {**passed, VARIABLE: theirs.fileno()}
            process = await asyncio.create_subprocess_exec(
                # -P: a module of the author's folder must not stand in for one of ours
                *(sys.executable, "-P", "-m", "bema", "run", *arguments),
                # two versions run at once: neither may read what is typed
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, **{name: str(number) for name, number in given.items()}},
                pass_fds=tuple(given.values()),
                process_group=0,
            )
        ours.setblocking(False)
        version = cls(process, *await asyncio.open_connection(sock=ours, limit=settings.current().limits.channel_line))
        # in a lane of its own, so that nobody who does not ask for it gets an answer of what is being written
        version._say(msgspec.structs.replace(default_init("bema dev"), settings={"lane": DEV}))
        return version

    async def listen(self) -> None:
        """Read the channel to its end and set `announce`, to None where no announcement came."""
        try:
            while line := await self._reader.readline():
                said = read_from_module(line)
                if isinstance(said, Announce) and not self.announce.done():
                    self.announce.set_result(said)
        except (OSError, ValueError, BemaError):
            self.kill()  # it does not speak the handshake, so it could not be told to stop
        finally:
            if not self.announce.done():
                self.announce.set_result(None)
            self._writer.close()
            await self.process.wait()

    async def stop(self) -> None:
        """Tell the process to stop; kill it where it does not end in time."""
        # one that does not serve has no calls to finish
        serves = self.announce.done() and self.announce.result() is not None
        self._say(Stop())
        try:
            async with asyncio.timeout((settings.current().limits.drain if serves else 0) + GRACE):
                await self.process.wait()
        except TimeoutError:
            self.kill()
            await self.process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _say(self, word: Init | Stop) -> None:
        if not self._writer.is_closing():
            self._writer.write(encode(word))


class Reloader:
    """Runs one version after the other. `tell` gets lines to show to the author."""

    def __init__(
        self, file: Path, arguments: list[str], tell: Callable[[str], None], passed: Mapping[str, int] | None = None
    ) -> None:
        self._file = file
        self._arguments = arguments
        self._tell = tell
        self._passed = passed or {}
        self._current: ReloadedVersion | None = None
        self._tasks = Tasks("dev")
        self._old: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set and all processes have ended."""
        watch = Watch(self._file)
        watch.look()
        try:
            while not stop.is_set():
                await self._replace(watch, stop)
        finally:
            watch.close()
            if self._current is not None:
                self._retire(self._current)
            if self._old:
                await asyncio.wait(self._old)
            await self._tasks.stop()

    async def _replace(self, watch: Watch, stop: asyncio.Event) -> None:
        """Start a version and wait for the next change, before it serves or after."""
        began = monotonic()
        version = await ReloadedVersion.start(self._arguments, self._passed)
        self._tasks.start(version.listen(), name=f"version {version.process.pid}")
        changed = asyncio.ensure_future(_first(watch.changed(), stop.wait()))
        turns: set[asyncio.Future[Any]] = {version.announce, changed}
        try:
            await asyncio.wait(turns, return_when=asyncio.FIRST_COMPLETED)
            announce = version.announce.result() if version.announce.done() else None
            if announce is not None:
                self._serves(version, announce, monotonic() - began)
            else:
                if not changed.done():
                    await version.process.wait()  # its last words come before ours
                    self._tell(self._failure())
                self._retire(version)
            await changed
        finally:
            changed.cancel()

    def _serves(self, version: ReloadedVersion, announce: Announce, seconds: float) -> None:
        before, self._current = self._current, version
        self._tell(ready(announce, seconds) if before is None else reloaded(announce, seconds))
        self._tasks.start(self._until_it_ends(version), name="the end of the version")
        if before is not None:
            self._retire(before)

    async def _until_it_ends(self, version: ReloadedVersion) -> None:
        code = await version.process.wait()
        if self._current is version:
            self._current = None
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
            self._tell(f"the service ended {how}; save {self._file.name} to start it again")

    def _retire(self, version: ReloadedVersion) -> None:
        if self._current is version:
            self._current = None
        ending = self._tasks.start(version.stop(), name="stopping a version")
        self._old.add(ending)
        ending.add_done_callback(self._old.discard)

    def _failure(self) -> str:
        if self._current is None:
            return f"{self._file.name} does not start; mend it and save"
        return f"{self._file.name} does not start; the version before it keeps serving"


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def ready(announce: Announce, seconds: float) -> str:
    """What the terminal shows first."""
    address = f"{announce.namespace}.{announce.name}"
    lines = [f"{address} is ready: instance {announce.instance} ({seconds:.2f} s)"]
    for info in (announce.operations or [])[:3]:
        given = "".join(f" {name}=..." for name in info.fields or info.parameters or ())
        lines.append(
            f"  call it  bema call {address}.{info.name}{given}{' --stream' if info.shape.streams_out else ''}"
        )
    lines.append("  ask it   BEMA_LANE=dev calls this one, also where another is deployed or was started by hand")
    return "\n".join([*lines, "  edit it  what is saved is served, and running calls finish", "  stop it  Ctrl-C"])


def reloaded(announce: Announce, seconds: float) -> str:
    address = f"{announce.namespace}.{announce.name}"
    return f"{address} is reloaded: instance {announce.instance} ({seconds:.2f} s)"

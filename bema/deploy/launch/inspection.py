"""Asking instances where they stand: a socket of its own per instance, whose other end a thread of the runner answers.

The launcher makes the pair; the instance inherits one end and the keeper keeps a copy of the other, so that the next
orchestrator can ask. Laws: nothing is read but the answer to a question, so that an instance that writes by itself fills
its own buffer; what comes is bounded; and a signal is sent only to a process that handles it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bema.core.errors import BemaError, Conflict, Invalid, NotFound, ProtocolError, Unavailable
from bema.core.naming import show_instance_id
from bema.deploy.keeper.processes import start_of
from bema.deploy.launch.keeper_client import KeeperClient
from bema.deploy.model.replica import Replica
from bema.deploy.model.stack import Profile, Stack, StackFrame, read_traceback

NAME, THEIRS = "inspection", "inspection_fd"
LONGEST = 60.0
"""Seconds that a profile may take."""
SIGNAL = signal.SIGRTMAX - 1  # to which the runner answers with tracebacks
_PATIENCE = 1.0  # seconds; a thread that may run answers in milliseconds
_SETTLED = 0.3  # seconds of silence after which a traceback is whole
_LARGEST = 16 * 1024 * 1024  # bytes of an answer
_BUSY = "busy"
_SAID = 200  # characters of an error
_MOST_LINES = 100_000
_PIECE = 256 * 1024

_Told = TypeVar("_Told")


class InspectionSocket:
    """One instance, as far as it can be asked. It is read as long as somebody waits for what it says."""

    def __init__(self, instance: int, end: socket.socket) -> None:
        self._name = show_instance_id(instance)
        self._end = end
        self._end.setblocking(False)
        # an orchestrator before us may have asked, and not read: its numbers must not be ours
        self._numbers = itertools.count(time.time_ns())
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._rest = bytearray()
        self._text: list[bytes] | None = None  # lines that answer no question, while somebody wants them
        self._more = asyncio.Event()
        self._tracing = asyncio.Lock()

    async def ask(self, what: str, patience: float, **more: Any) -> dict[str, Any] | None:
        """What its thread answers; None where that does not run. `Unavailable` where nobody is there to answer."""
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._watch()
        try:
            self._end.send(msgspec.json.encode({"id": number, "ask": what, **more}) + b"\n")
            async with asyncio.timeout(patience):
                found: dict[str, Any] = await answer
                return found
        except (TimeoutError, BlockingIOError):
            return None
        except OSError as error:
            raise self._silent() from error
        finally:
            del self._waiting[number]
            self._watch()

    async def traceback(self, pid: int, process_start: int) -> str:
        """What the handler of the signal writes; empty where it handles none."""
        async with self._tracing:
            self._text = []
            self._watch()
            try:
                if not _signalled(pid, process_start):
                    return ""
                # it writes line by line: it is whole when nothing comes any more
                patience = _PATIENCE
                with contextlib.suppress(TimeoutError):
                    while True:
                        self._more.clear()
                        async with asyncio.timeout(patience):
                            await self._more.wait()
                        patience = _SETTLED
                return b"\n".join([*self._text, self._rest]).decode("utf-8", "replace")
            finally:
                self._text = None
                self._watch()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        if (self._waiting or self._text is not None) and self._end.fileno() >= 0:
            loop.add_reader(self._end, self._read)
        else:
            loop.remove_reader(self._end)

    def _read(self) -> None:
        try:
            more = self._end.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        if not more:
            self._fail(self._silent())
            return
        self._more.set()
        self._rest += more
        if b"\n" in more:
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                self._take(bytes(line))
        if len(self._rest) > _LARGEST or (self._text is not None and len(self._text) > _MOST_LINES):
            self._rest = bytearray()
            self._fail(ProtocolError(f"instance {self._name} tells more than can be shown"))

    def _take(self, line: bytes) -> None:
        try:
            found = msgspec.json.decode(line, type=dict[str, Any])
            waiting = self._waiting.get(found.get("id", 0))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError):
            if self._text is not None:
                self._text.append(line)
            return
        if waiting is not None and not waiting.done():
            waiting.set_result(found)

    def _fail(self, error: BemaError) -> None:
        asyncio.get_running_loop().remove_reader(self._end)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)

    def _silent(self) -> Unavailable:
        fix = "It has ended, has closed what it did not open, or is no Python program that bema runs."
        return Unavailable(f"instance {self._name} does not answer where it stands", fix=fix)

    def close(self) -> None:
        if self._end.fileno() >= 0:
            self._fail(self._silent())
            self._end.close()


class InspectionSockets:
    """The instances of one launcher, to be asked."""

    def __init__(self, keeper: KeeperClient) -> None:
        self._keeper = keeper
        self._open: dict[int, InspectionSocket] = {}

    def begin(self, instance: int, passing: contextlib.ExitStack) -> dict[str, int]:
        """Make the pair of a new instance; copies of both ends to spawn it with, closed with `passing`."""
        ours, theirs = (passing.enter_context(end) for end in socket.socketpair())
        self._open[instance] = InspectionSocket(instance, ours.dup())
        return {NAME: ours.fileno(), THEIRS: theirs.fileno()}

    async def resume(self, instance: int) -> None:
        """Ask where the orchestrator before this one did."""
        if instance not in self._open:
            descriptor = await self._keeper.borrow(instance, NAME)
            self._open[instance] = InspectionSocket(instance, socket.socket(fileno=descriptor))

    async def stack(self, replica: Replica, process_start: int, script: str) -> Stack:
        """Where it stands now. `Unavailable` where it cannot be asked, `ProtocolError` for an answer that is none."""
        asked = self._asked(replica)
        found = await asked.ask("stack", _PATIENCE)
        if found is not None:
            return _read(found, Stack, replica)
        traceback = await asked.traceback(replica.pid, process_start)
        if not traceback:
            raise Unavailable(
                f"instance {replica.label} does not answer within {_PATIENCE:g} s where it stands",
                fix="Ask again; the machine may be busy.",
            )
        told = await asyncio.to_thread(_with_lines, read_traceback(traceback, script), script)
        return msgspec.structs.replace(told, instance=replica.label, version=replica.version)

    async def profile(self, replica: Replica, seconds: float, *, idle: bool) -> Profile:
        """Where its time goes in the `seconds` to come; with `idle`, of threads that wait as well."""
        if not 0 < seconds <= LONGEST:
            raise Invalid(f"a profile takes more than 0 and at most {LONGEST:g} seconds, not {seconds:g}")
        found = await self._asked(replica).ask("profile", seconds + _PATIENCE * 10, seconds=seconds, idle=idle)
        if found is None:
            raise Unavailable(
                f"instance {replica.label} gave no profile",
                fix="C code holds its interpreter: `bema stack` tells where.",
            )
        if found.get("error") == _BUSY:
            raise Conflict(f"a profile of instance {replica.label} is being taken", fix="Wait for its end.")
        return _read(found, Profile, replica)

    def _asked(self, replica: Replica) -> InspectionSocket:
        if (asked := self._open.get(replica.instance)) is None:
            raise NotFound(f"instance {replica.label} cannot be asked where it stands")
        return asked

    def end(self, instance: int) -> None:
        if (asked := self._open.pop(instance, None)) is not None:
            asked.close()

    def close(self) -> None:
        """Let go of all of them; the keeper keeps its copies."""
        for instance in list(self._open):
            self.end(instance)


def _read(found: dict[str, Any], kind: type[_Told], replica: Replica) -> _Told:
    if "error" in found:
        raise ProtocolError(f"instance {replica.label} cannot tell of itself: {str(found['error'])[:_SAID]}")
    try:
        return msgspec.convert({**found, "instance": replica.label, "version": replica.version}, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ProtocolError(f"what instance {replica.label} tells of itself cannot be read: {error}") from error


def _signalled(pid: int, process_start: int) -> bool:
    """Send the signal to a process that handles it; whether it was sent."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # asked once it is held: its number may have become that of another
        if start_of(pid) != process_start or not _handles(pid):
            return False
        signal.pidfd_send_signal(process, SIGNAL)
    except OSError:
        return False
    finally:
        os.close(process)
    return True


def _handles(pid: int) -> bool:
    # who handles it not would be ended by it
    text = Path(f"/proc/{pid}/status").read_text()
    caught = next((line for line in text.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) >> (SIGNAL - 1) & 1)


def _with_lines(stack: Stack, script: str) -> Stack:
    """With the lines of the script itself, the only file that we read in an instance's place."""
    try:
        lines = Path(script).read_bytes()[:_LARGEST].decode("utf-8", "replace").split("\n")
    except OSError:
        return stack

    def told(frame: StackFrame) -> StackFrame:
        there = frame.file == script and frame.line <= len(lines)
        return msgspec.structs.replace(frame, text=lines[frame.line - 1].strip()) if there else frame

    threads = (msgspec.structs.replace(each, frames=tuple(map(told, each.frames))) for each in stack.threads)
    return msgspec.structs.replace(stack, threads=tuple(threads))

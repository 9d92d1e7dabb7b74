"""One zygote: a child of ours with no warden, so that the wardens of what it forks become our children.

Laws: nobody waits for it: what it is asked for comes as a report, in time or not at all; and what it says is believed where
the kernel says the same, for the code of others has run in it. It ends with us.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .loop import READ, Loop
from .processes import children, kill_group, look, spawn, start_of
from .warden import Report, Warden

_VARIABLE = "BEMA_ZYGOTE"
_PREPARED = 60.0  # seconds for its imports
_FORKED = 3.0  # seconds; it takes a hundredth of one
_LONGEST = 4096
_UNFORKED = "its zygote did not fork it"


class ZygoteOrder(NamedTuple):
    """What to start, for whom: `key` says what two starts must have in common to share a zygote."""

    key: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    platform: str
    memory: int  # bytes that all zygotes may take together
    sandbox: dict[str, Any] | None  # to be entered before anything is imported


class Forked(NamedTuple):
    """What a zygote was asked for: what it is to be called, and what it holds by the names that Init has."""

    name: str
    descriptors: dict[str, int]
    surroundings: dict[str, Any]


Named = Callable[["Warden | None", str], None]


class Fork:
    """One that is under way: `done` is told its warden, or why there is none; once."""

    def __init__(self, loop: Loop, report: Report, late: Callable[[], None], done: Named) -> None:
        self._loop = loop
        self._report = report
        self._done = done
        self._timer = loop.after(_FORKED, late)
        loop.watch(report.descriptor, READ, self.look)
        self.over = False

    def look(self) -> None:
        """Take in what was reported."""
        # what was named has the report, and may have closed it
        if self.over:
            return
        said = self._report.hear()
        if not (self._report.over or {"pid", "errno"} & said.keys()):
            return
        try:
            warden = Warden(self._report)
        except (OSError, KeyError):
            self.fail(str(said.get("strerror", _UNFORKED)))
            return
        # else its kill would be somebody else's
        if type(warden.pid) is not int or type(warden.child) is not int or not _is_ours(warden):
            self.fail("its zygote named a process that it has not forked")
            return
        self._end()
        self._done(warden, "")

    def fail(self, why: str) -> None:
        if not self.over:
            self._end()
            self._report.close()
            self._done(None, why)

    def _end(self) -> None:
        self.over = True
        self._timer.cancel()
        self._loop.forget(self._report.descriptor)

    @property
    def named(self) -> int:
        """The warden, as soon as it may be our child."""
        said = 0 if self.over else self._report.hear().get("warden")
        return said if type(said) is int else 0


def _is_ours(warden: Warden) -> bool:
    child = look(warden.child)
    return warden.pid in children() and child is not None and child.parent == warden.pid


class Zygote:
    """`ready` from when it forks; `ended` is to be called once it was reaped."""

    def __init__(
        self,
        loop: Loop,
        order: ZygoteOrder,
        modules: list[str],
        skipped: list[str],
        descriptors: tuple[int, int],
        prepared: Callable[[], None],
    ) -> None:
        """`OSError` when it cannot be started."""
        self.order = order
        self.modules = modules
        self.ready = self.was_ready = False
        self.importing = ""
        self.unfit: tuple[str, str] | None = None  # a module that it cannot have, and why
        self.used = time.monotonic()
        self.memory = 0  # bytes of its own when it was ready
        self.killed = ""  # why we did
        self._loop = loop
        self._descriptor_limit = descriptors
        self._prepared = prepared
        self._forks: list[Fork] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        plan = _file({"modules": modules, "skipped": skipped, "platform": order.platform, "sandbox": order.sandbox})
        try:
            self._process = spawn(
                order.argv,
                {**order.env, _VARIABLE: f"{theirs.fileno()},{plan}"},
                order.cwd,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                descriptors=(theirs.fileno(), plan),
                descriptor_limit=descriptors,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(plan)
        self.pid = self._process.pid
        self.start = start_of(self.pid)
        ours.setblocking(False)
        self._socket = ours
        loop.watch(ours, READ, self._hear)
        self._late = loop.after(_PREPARED, lambda: self.kill(f"it took more than {_PREPARED:g} s to import"))

    def _hear(self) -> None:
        try:
            said = json.loads(self._socket.recv(_LONGEST))
        except BlockingIOError:
            return
        except (OSError, ValueError):
            # its end, which says more of itself when it is reaped; or nonsense
            self._loop.forget(self._socket)
            self.kill("")
            return
        match said:
            case {"importing": str(name)}:
                self.importing = name
            case {"unfit": str(name), "why": str(why)}:
                self.unfit = name, why
            case {"ready": True}:
                self.ready = self.was_ready = True
                self.memory = self.measure()
                self._late.cancel()
                self._prepared()

    def fork(self, wanted: Forked, done: Named) -> None:
        """Ask for one. `OSError` when it cannot be asked."""
        reading, writing = os.pipe()
        surroundings = -1
        try:
            surroundings = _file({**wanted.surroundings, "descriptors": self._descriptor_limit})
            passed = {"report": writing, "surroundings": surroundings, **wanted.descriptors}
            message = {"descriptors": list(passed), "name": wanted.name, "asked": time.monotonic()}
            socket.send_fds(self._socket, [json.dumps(message).encode()], list(passed.values()))
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
            if surroundings >= 0:
                os.close(surroundings)
        self.used = time.monotonic()
        self._forks = [fork for fork in self._forks if not fork.over]
        self._forks.append(Fork(self._loop, Report(reading), self._hangs, done))

    def _hangs(self) -> None:
        # the others that it was asked for hear of its end
        self.kill(f"it did not fork within {_FORKED:g} s")
        for fork in list(self._forks):
            fork.fail(self.killed)

    def look(self) -> set[int]:
        """Take in what was reported of its forks; gives the wardens that are not named in full yet."""
        for fork in list(self._forks):
            fork.look()
        return {fork.named for fork in self._forks if not fork.over}

    @property
    def forking(self) -> int:
        return sum(not fork.over for fork in self._forks)

    def measure(self) -> int:
        """Bytes of memory that are its own; 0 when it is gone."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)

    def kill(self, why: str) -> None:
        self.killed = self.killed or why
        self.ready = False
        kill_group(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)

    def ended(self, status: int) -> str:
        """It was reaped: let go of everything; how it ended, in words."""
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.ready = False
        self._late.cancel()
        while self.unfit is None and self._unheard():
            self._hear()
        self._loop.forget(self._socket)
        self._socket.close()
        for fork in list(self._forks):
            fork.look()
            fork.fail(_UNFORKED)
        code = self._process.returncode
        return self.killed or (f"it ended with code {code}" if code >= 0 else f"it was ended by signal {-code}")

    def _unheard(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        return False


def _file(content: dict[str, Any]) -> int:
    """A file in memory that holds it, for whoever inherits it."""
    descriptor = os.memfd_create("order", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(json.dumps(content).encode())
    return descriptor

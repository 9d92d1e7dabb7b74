"""The warden: a process between us and a child, below which everything that the child starts stays.

A child may clear its environment, make sessions of its own and orphan its offspring; what the kernel never takes from it is
its descent. The warden is the subreaper of that tree: whoever loses a parent there becomes the warden's own child. When the
child ends, when we say so or when we die, it ends its children until the kernel says that there is none: then there is no
descendant either.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .processes import become_subreaper, bound_to, children, die_with_parent, end_now

END = signal.SIGTERM  # to a warden: end everything; the kernel sends it when whoever started the warden is gone
ASK = signal.SIGUSR1  # to a warden: ask the child to stop
_AWAITED = (signal.SIGCHLD, END, ASK)
_PATIENCE = (
    10.0  # seconds; what cannot be killed (another user's, one in a broken disk) must not be waited for for ever
)
_FIRST_PAUSE = 0.0005
_LAST_PAUSE = 0.05
_ARGV = (45, 46)  # fields of /proc/PID/stat after the name: where the arguments begin and end

Spawn = Callable[[], "subprocess.Popen[bytes]"]


class Report:
    """The reading end of what a warden says, line by line: `said` is all of it together, `over` that nothing more comes."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.said: dict[str, Any] = {}
        self.over = False
        self._rest = b""

    def hear(self) -> dict[str, Any]:
        """What has been said until now."""
        with contextlib.suppress(BlockingIOError):
            while not self.over:
                came = os.read(self.descriptor, 64 * 1024)
                self.over = not came
                *lines, self._rest = (self._rest + came).split(b"\n")
                for line in lines:
                    self._take(line)
        return self.said

    def _take(self, line: bytes) -> None:
        # what is forked by a zygote writes here, too, until it runs its script: it may be anybody's import
        with contextlib.suppress(ValueError, TypeError):
            self.said |= json.loads(line)

    def wait(self) -> dict[str, Any]:
        """Until it has said how the start went."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while not self.over and not {"pid", "errno"} & self.hear().keys():
            poll.poll()
        return self.said

    def close(self) -> None:
        os.close(self.descriptor)


class Warden:
    """Our end of one: `pid` is its own, `child` the pid of what it watches."""

    def __init__(self, report: Report) -> None:
        """The one that reports there. `OSError` where it has reported that the child could not be started."""
        said = report.said
        if "pid" not in said:
            raise OSError(said.get("errno"), said.get("strerror", "its warden was killed"), said.get("filename"))
        self.report = report
        self.pid: int = said["warden"]
        self.child: int = said["pid"]

    @classmethod
    def start(cls, name: str, spawn: Spawn) -> Warden:
        """Fork it, and have it call `spawn`. `OSError` when either cannot be."""
        reading, writing = os.pipe()
        # a signal that came between fork and the child's first line would wake our loop from there
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            keeper = os.getpid()
            if os.fork() == 0:
                os.close(reading)
                _stand(keeper, name, spawn, writing)
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        report = Report(reading)
        try:
            # this waits, as any spawn waits for its exec: milliseconds, and no longer than the fork
            # lives
            report.wait()
            return cls(report)
        except OSError:
            report.close()
            raise

    def signal(self, number: int) -> None:
        """Tell it to `END` or to `ASK`, even where somebody has stopped it."""
        for each in (number, signal.SIGCONT):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, each)

    def close(self) -> int:
        """Once it was reaped: the wait status of the child. Who kills a warden kills its child."""
        said = self.report.hear()
        self.report.close()
        # the kernel killed the child with it, by the parent-death signal
        return int(said.get("status", signal.SIGKILL))


class Descent:
    """Inside the warden: the child and all that descends from it, until it or our parent has ended."""

    def __init__(self, parent: int, child: int) -> None:
        self.status: int | None = None
        self._parent = parent
        self._child = child
        self._told_to_end = False

    def run(self, ended: Callable[[int], object]) -> bool:
        """Until everything has ended; whether it has. `ended` is told the child's status as soon as there is one."""
        while self._reap(ended) and self.status is None and not self._told_to_end and os.getppid() == self._parent:
            self._hear(signal.sigwaitinfo(_AWAITED).si_signo)
        deadline, pause = time.monotonic() + _PATIENCE, _FIRST_PAUSE
        while self._reap(ended):
            if time.monotonic() > deadline:
                return False
            # the parents first: who is killed starts no other in place of its child
            for pid in children():
                end_now(pid)
            signal.sigtimedwait((signal.SIGCHLD,), pause)
            pause = min(pause * 2, _LAST_PAUSE)
        return True

    def _hear(self, number: int) -> None:
        if number == ASK:
            with contextlib.suppress(OSError):
                os.killpg(self._child, signal.SIGTERM)
        self._told_to_end = self._told_to_end or number == END

    def _reap(self, ended: Callable[[int], object]) -> bool:
        """Whether there is still anybody."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            # at once: where something below it cannot be killed, its status is known all the same
            if pid == self._child:
                self.status = status
                ended(status)


def _stand(keeper: int, name: str, spawn: Spawn, report: int) -> NoReturn:
    """The warden's whole life, in a fork of the keeper."""
    code = 1
    try:
        _prepare(keeper)
        code = _watched(keeper, name, spawn, report)
    finally:
        os._exit(code)


def _prepare(keeper: int) -> None:
    signal.set_wakeup_fd(-1)
    # collecting garbage would copy the pages that it shares with who forked it
    gc.disable()
    # out of the terminal's group, whose signals are the keeper's, and before there is a child
    os.setsid()
    become_subreaper()
    die_with_parent(keeper, END)


def _watched(keeper: int, name: str, spawn: Spawn, report: int) -> int:
    try:
        child = spawn()
    except OSError as error:
        _say(report, errno=error.errno, strerror=error.strerror or str(error), filename=error.filename)
        return 0
    return watch(keeper, name, child.pid, report)


def adopted(keeper: int, before: int) -> None:
    """In a fork of a fork, whose parent `before` ends: wait until the keeper is the parent, and be what a warden is."""
    while os.getppid() == before:
        time.sleep(_FIRST_PAUSE / 10)
    # of a keeper that ended meanwhile, this hears at once
    _prepare(keeper)


def bind(warden: int) -> None:
    """In its fork: a session of its own, that ends with the warden and hears every signal, as any child of a warden."""
    os.setsid()
    bound_to(warden)()


def watch(keeper: int, name: str, child: int, report: int) -> int:
    """Watch a child until all that descends from it has ended; the exit code of the warden."""
    # leases, listeners and the state's lock are held by whom they are for alone
    _hold_only(report)
    # who is not heard by the keeper would be nobody's, and its child with it
    if not _say(report, warden=os.getpid(), pid=child):
        return 1
    _be_called(f"bema: warden of {name}")
    return 0 if Descent(keeper, child).run(lambda status: _say(report, status=status)) else 1


def _say(report: int, **what: object) -> bool:
    try:
        os.write(report, json.dumps(what).encode() + b"\n")
    except OSError:
        return False
    return True


def _hold_only(kept: int) -> None:
    # not os.closerange: where libc has no close_range, it calls close a million times
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:  # noqa: PTH208 - numbers
        if number != kept:
            with contextlib.suppress(OSError):
                os.close(number)


def _be_called(title: str) -> None:
    """What `ps` shows: else each would be taken, and killed, for another keeper."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return
    begin, end = (int(fields[field]) for field in _ARGV)
    if end > begin:
        ctypes.memmove(begin, title.encode()[: end - begin - 1].ljust(end - begin, b"\0"), end - begin)


def main(arguments: list[str]) -> int:
    """`PARENT PROGRAM ARGUMENT...`: run a program below a warden; ends with it, with its code, or with `PARENT`."""
    parent, *argv = arguments
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    become_subreaper()
    die_with_parent(int(parent), END)
    try:
        # its streams and descriptors are those that we were given
        child = subprocess.Popen(argv, close_fds=False, start_new_session=True, preexec_fn=bound_to(os.getpid()))
    except OSError as error:
        sys.stderr.write(f"error: {argv[0]}: {error.strerror}\n")
        return 127
    descent = Descent(int(parent), child.pid)
    descent.run(lambda status: setattr(child, "returncode", os.waitstatus_to_exitcode(status)))
    code = child.returncode
    return 1 if code is None else code if code >= 0 else 128 - code

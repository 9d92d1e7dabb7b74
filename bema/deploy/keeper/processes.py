"""What the kernel is asked: spawn, parent-death signal, subreaper, children, groups and start times."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def become_subreaper() -> None:
    """Orphans among our descendants become our children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Be sent `number` when `parent` dies; end at once where it died before this."""
    # it follows the thread that forked: whoever uses this forks in its main thread. The question
    # comes second: of a parent that dies after it, the kernel tells
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def raise_descriptor_limit() -> tuple[int, int]:
    """Allow ourselves all the descriptors we may have; returns what children get back."""
    given = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (given[1], given[1]))
    return given


def spawn(
    argv: list[str],
    env: dict[str, str],
    cwd: str,
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int,
    stderr: int,
    descriptors: Collection[int],
    descriptor_limit: tuple[int, int] | None = None,
) -> subprocess.Popen[bytes]:
    """A child in a session and group of its own that dies with us and holds only `descriptors`.

    `OSError` when it cannot be: too many processes or descriptors, no such program or folder.
    """
    try:
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=cwd,
            close_fds=True,
            pass_fds=tuple(descriptors),
            # no terminal: Ctrl-C is for us, and we drain; and its group can be signalled as one
            start_new_session=True,
            preexec_fn=bound_to(os.getpid(), descriptor_limit),
        )
    except subprocess.SubprocessError as error:
        # preparing it failed in the fork, of which no errno comes back
        raise OSError(f"the child could not be prepared: {error}") from error


def bound_to(parent: int, descriptor_limit: tuple[int, int] | None = None) -> Callable[[], None]:
    """What a child does before it becomes another program: it dies with `parent`, and hears every signal."""

    def prepare() -> None:
        die_with_parent(parent)
        # a mask outlives exec, and a warden blocks everything
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # select(2) of a user's program breaks above 1024: it gets back what we were given
        if descriptor_limit is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, descriptor_limit)

    return prepare


class Process(NamedTuple):
    """One line of /proc."""

    pid: int
    parent: int
    group: int
    session: int
    start: int


def look(pid: int) -> Process | None:
    """What /proc says of a process; None when there is none (a zombie is none)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # from the last bracket: the name before it may hold spaces and brackets of its own
    fields = text.rpartition(")")[2].split()
    # a zombie holds nothing and can do nothing; its number is all that is left of it
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def start_of(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when it is gone."""
    found = look(pid)
    return found.start if found else 0


def processes() -> Iterator[Process]:
    try:
        names = os.listdir("/proc")  # noqa: PTH208 - many
    except OSError:  # out of descriptors
        # finding nobody is safe: whoever looks in order to end somebody looks again
        return
    for name in names:
        if name.isdecimal() and (found := look(int(name))) is not None:
            yield found


def children() -> list[int]:
    """Our children, zombies among them. One look may miss some while others end: look until there is none."""
    me = os.getpid()
    try:
        return [int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()]
    except OSError:  # a kernel without it, or out of descriptors
        return [process.pid for process in processes() if process.parent == me]


def end_now(pid: int) -> None:
    """Kill a child and its whole group.

    To fork and to be killed as a group exclude each other in the kernel: a group that forks without end is ended by this.
    """
    with contextlib.suppress(OSError):
        group = os.getpgid(pid)
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def carries(pid: int, marker: str) -> bool:
    """Whether a process was started with `marker` (`NAME=value`) in its environment: its children inherit it."""
    try:
        return marker.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def kill_group(group: int, number: int) -> bool:
    """Signal a whole group; False when nobody is left in it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def reap() -> Iterator[tuple[int, int]]:
    """Every child that has ended, as (pid, wait status)."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status

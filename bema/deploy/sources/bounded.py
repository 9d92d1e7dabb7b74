"""A child that reads what a stranger wrote, and what it may cost.

Laws: who asks waits, and nobody else: their loop is free. The child gets so much memory and processor time, ends at the
deadline and with whoever asked. It need not know of that: its bounds are set from outside, before it was given a byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import resource
import signal
import sys
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from bema.core.errors import Overloaded

_AT_ONCE = 3
"""Children of one loop: each may take its whole memory."""
_PATIENCE = 10.0
"""Seconds to wait for a turn: with the time to read it is less than the gateway waits for an answer."""
_NICENESS = 5
_DEADLINE = 3.0
"""Times the processor time: the machine has other work, but a child that waits for something is not reading."""

_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()


class ChildBounds(NamedTuple):
    memory: int
    processor: float


class Crossed(Exception):
    """The child ended without an answer; the text says which bound it met, as far as that can be told."""


async def answer_of(argv: Sequence[str], content: bytes, bounds: ChildBounds) -> bytes:
    """What a child says of `content`; `Crossed` where it does not end by itself, and well.

    `Overloaded` where others took all turns for too long.
    """
    async with _turn():
        child = await asyncio.create_subprocess_exec(
            *argv,
            # it runs nothing, but a compiler that was broken into should find no secret of ours
            env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # warnings about a script may be longer than the script, and nobody reads them
            stderr=asyncio.subprocess.DEVNULL,
        )
        said = b""
        try:
            _bind(child.pid, bounds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(bounds.processor * _DEADLINE):
                    said, _ = await child.communicate(content)
        finally:
            late = child.returncode is None
            if late:
                child.kill()
                await child.wait()
    if late or child.returncode != 0:
        raise Crossed(_reason(child.returncode or 0, bounds, late=late))
    return said


@contextlib.asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE))
    try:
        async with asyncio.timeout(_PATIENCE):
            await turn.acquire()
    except TimeoutError as error:
        raise Overloaded(f"{_AT_ONCE} other scripts are being read", retry_after=_PATIENCE) from error
    try:
        yield
    finally:
        turn.release()


def _bind(pid: int, bounds: ChildBounds) -> None:
    # not in the child between fork and exec: that is no place for code where threads run
    if sys.platform != "linux":
        return
    # the kernel counts whole seconds
    seconds = math.ceil(bounds.processor)
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (bounds.memory, bounds.memory))
        resource.prlimit(pid, resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        # where processors are few, who serves goes before who reads
        os.setpriority(os.PRIO_PROCESS, pid, _NICENESS)


def _reason(code: int, bounds: ChildBounds, *, late: bool) -> str:
    if late:
        return f"it takes longer than {bounds.processor * _DEADLINE:.0f} s"
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"it takes more than {bounds.processor:.0f} s of processor time"
    return f"it is nested too deeply, or takes more than {bounds.memory // 2**20} MiB of memory"

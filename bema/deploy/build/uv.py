"""Running uv: the one that came with us, with a deadline, and its words kept.

Laws: uv never runs on the start path; a process of ours ends with whoever asked for it; credentials leave no trace in a
text that is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bema.core.errors import Failed, Refused
from bema.deploy.build.progress import Told, step_of
from bema.deploy.build.variables import build_variables
from bema.deploy.keeper import warden

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]+(?=@)")
_COMPLAINT = re.compile(r"\s*(?:error|cause): (.*)")

_BELOW_CARETS = re.compile(r"^ +\| +\^+\n(.+)$", re.M)  # what is wrong with the line that it shows
_FULL = re.compile(r"No space left on device|Disk quota exceeded", re.I)
_OUT_OF_MEMORY = re.compile(r"^memory allocation of \d+ bytes failed", re.M)

_HEADLINE = 2000  # a requirement that uv repeats may be longer; `detail` has it whole
_MOST = 16 * 1024 * 1024  # of what is taken of its answer; a large lock that is exported has one MiB
_WARDEN = (sys.executable, "-I", "-S", str(Path(warden.__file__).with_name("__main__.py")), "warden")

_LONGEST = 64 * 1024  # of what is kept of a complaint; the end of it says what is wrong


def masked(text: str) -> str:
    """The text without what stands before the '@' of its URLs."""
    return _CREDENTIALS.sub("****", text)


class Uv:
    """The uv binary of our environment."""

    def __init__(self, binary: str = "") -> None:
        self._binary = binary

    @property
    def binary(self) -> str:
        if not self._binary:
            try:
                import uv  # noqa: PLC0415 - extra
            except ImportError as error:
                raise Refused("deploying needs uv: install bema[platform]", code="missing_extra") from error
            self._binary = os.fsdecode(uv.find_uv_bin())
        return self._binary

    async def run(
        self,
        *arguments: str,
        cwd: Path | None = None,
        timeout: float = 60.0,
        env: Mapping[str, str] = MappingProxyType({}),
        keep: Sequence[int] = (),
        memory: int = 0,
        told: Told | None = None,
    ) -> str:
        """What uv prints; `Failed` (build_failed) with its complaint as `detail`.

        `keep` are descriptors that uv inherits: a lock held by them lasts as long as the longest-lived of both. `memory` is
        what each process of the run may have; 0 bounds nothing. `told` is told what it does meanwhile.
        """
        verb = arguments[0]
        if told is None:
            arguments = ("--no-progress", *arguments)
        child = await self._begin(arguments, cwd, build_variables(os.environ) | dict(env), keep, memory)
        try:
            async with asyncio.timeout(timeout):
                out, complaint = await _heard(child, told)
        except TimeoutError as error:
            raise Failed(f"`uv {verb}` took longer than {timeout:.0f} s", code="build_failed") from error
        finally:
            await _end(child)
        if child.returncode != 0:
            # masked before it is cut: half a URL would not be taken for one
            said = masked(complaint[-2 * _LONGEST :].decode(errors="replace")).strip()[-_LONGEST:]
            raise Failed(_headline(said, verb, child.returncode or 0, memory), code="build_failed", detail=said)
        if len(out) > _MOST:
            raise Failed(f"`uv {verb}` printed more than {_MOST} bytes", code="build_failed")
        return out.decode(errors="replace")

    async def _begin(
        self, arguments: Sequence[str], cwd: Path | None, env: dict[str, str], keep: Sequence[int], memory: int
    ) -> asyncio.subprocess.Process:
        # build backends, and what they leave behind, end with it: its warden knows them all
        beginning = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *_WARDEN,
                str(os.getpid()),
                *_within(memory),
                self.binary,
                "--color=never",
                *arguments,
                cwd=cwd,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                pass_fds=tuple(keep),
            )
        )
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            # asyncio would kill the warden alone, and wait for those below it that hold its output
            await _end(await beginning)
            raise


async def _heard(child: asyncio.subprocess.Process, told: Told | None) -> tuple[bytes, bytes]:
    """The last of what it prints and of what it complains of; a backend may write without end."""
    assert child.stdout is not None and child.stderr is not None
    complaining = _last(child.stderr) if told is None else _without_steps(child.stderr, told)
    out, complaint, _ = await asyncio.gather(_last(child.stdout), complaining, child.wait())
    return out, complaint


async def _without_steps(stream: asyncio.StreamReader, told: Told) -> bytes:
    """The last of what it complains of; its steps are told, and left out."""
    kept, line = bytearray(), b""
    while piece := await stream.read(_LONGEST):
        *lines, line = (line + piece).split(b"\n")
        for each in lines:
            if step := step_of(masked(each.decode(errors="replace"))):
                told(step)
            else:
                kept += each + b"\n"
        if len(line) > _LONGEST:  # a backend may write one line without end
            kept, line = kept + line, b""
        if len(kept) > 2 * _MOST:
            del kept[: -_MOST - 1]
    return bytes(kept + line)


async def _last(stream: asyncio.StreamReader) -> bytes:
    kept = bytearray()
    while piece := await stream.read(_LONGEST):
        kept += piece
        if len(kept) > 2 * _MOST:
            del kept[: -_MOST - 1]  # one more than is taken: it shows that there was more
    return bytes(kept)


async def _end(child: asyncio.subprocess.Process) -> None:
    """Return when nothing of it runs any more. Its warden goes on where we are cancelled once more."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(warden.END)
        await child.wait()


def _within(memory: int) -> tuple[str, ...]:
    """What stands before a command whose processes may have so much memory each."""
    if not memory or sys.platform != "linux":
        return ()
    # not by code between fork and exec, which is no place for it where threads run; a lower bound
    # that holds already stays. Data, not addresses: uv has 1300 MiB of these for 300 of those, and
    # a backend that imports a large library many times more
    return "/bin/sh", "-c", 'ulimit -d "$0" 2> /dev/null; exec "$@"', str(memory // 1024)


def _headline(said: str, verb: str, code: int, memory: int) -> str:
    """uv's error and its cause, on one line; of one that was ended, what ended it."""
    if _OUT_OF_MEMORY.search(said):
        return (
            f"`uv {verb}` took more than {memory // 2**20} MiB of memory"
            if memory
            else "the machine has no memory left"
        )
    # a shell and its like tell a signal as 128 and its number; uv itself has no code above 2
    if number := -code if code < 0 else max(0, code - 128):
        by = next((known.name for known in signal.Signals if known == number), f"signal {number}")
        return f"`uv {verb}` failed: ended by {by}" + (
            ", as the system does when memory runs out" if number == 9 else ""
        )
    # uv tells what failed first and why last; the reason alone would not say of what
    parts = [found[1].strip() for line in said.splitlines() if (found := _COMPLAINT.match(line))]
    parts += _BELOW_CARETS.findall(said)
    told = (": ".join(parts) or f"`uv {verb}` failed")[:_HEADLINE]
    full = _FULL.search(said)
    return f"{full[0]}: {told}" if full and not _FULL.search(told) else told

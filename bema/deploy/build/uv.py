"""Running uv: the one that came with us, with a deadline, and its words kept.

Laws: uv never runs on the start path; a process of ours ends with whoever asked for it; credentials leave no trace in a
text that is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bema.core.errors import Failed, Refused
from bema.deploy.keeper import warden

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]+(?=@)")
_COMPLAINT = re.compile(r"\s*(?:error|cause): (.*)")

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
    ) -> str:
        """What uv prints; `Failed` (build_failed) with its complaint as `detail`.

        `keep` are descriptors that uv inherits: a lock held by them lasts as long as the longest-lived of both.
        """
        child = await self._begin(arguments, cwd, _environment() | dict(env), keep)
        try:
            async with asyncio.timeout(timeout):
                out, complaint = await child.communicate()
        except TimeoutError as error:
            raise Failed(f"`uv {arguments[0]}` took longer than {timeout:.0f} s", code="build_failed") from error
        finally:
            await _end(child)
        if child.returncode != 0:
            said = masked(complaint.decode(errors="replace")).strip()[-_LONGEST:]
            raise Failed(_headline(said, arguments[0]), code="build_failed", detail=said)
        return out.decode(errors="replace")

    async def _begin(
        self, arguments: Sequence[str], cwd: Path | None, env: dict[str, str], keep: Sequence[int]
    ) -> asyncio.subprocess.Process:
        # build backends, and what they leave behind, end with it: its warden knows them all
        beginning = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *_WARDEN,
                str(os.getpid()),
                self.binary,
                "--color=never",
                "--no-progress",
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


async def _end(child: asyncio.subprocess.Process) -> None:
    """Return when nothing of it runs any more. Its warden goes on where we are cancelled once more."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(warden.END)
        await child.wait()


def _headline(said: str, verb: str) -> str:
    """uv's error and its cause, on one line."""
    parts = [found[1].strip() for line in said.splitlines() if (found := _COMPLAINT.match(line))]
    return ": ".join(parts) or f"`uv {verb}` failed"


def _environment() -> dict[str, str]:
    """Ours without what would steer uv to our own environment, or let it fetch an interpreter."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_PROJECT_ENVIRONMENT")
        and not name.startswith(("PYTHON", "BEMA_"))
    }
    return kept | {"UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}

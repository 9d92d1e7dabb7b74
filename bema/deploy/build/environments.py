"""What a script runs in: its dependencies locked, then installed once for all scripts with an equal lock.

Laws: the lock belongs to the user and is installed, not resolved, from then on. An environment is named by what is in it
(locked requirements with hashes, interpreter, platform), is made at its final path under a file lock, counts only with its
completion marker, and shares no file with uv's cache by hard link: a script that writes into it would change them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from bema.core.errors import Failed
from bema.core.limits import DEFAULTS
from bema.core.settings import PartSettings
from bema.core.version import VERSION
from bema.deploy.build.pythons import Python
from bema.deploy.build.uv import Uv
from bema.parts import Factory

MARKER = ".complete"
_FICLONE = 0x40049409  # linux/fs.h


class Wanted(msgspec.Struct, frozen=True):
    """What is to be made runnable. `lock` is the earlier lock of this very content, or empty."""

    code: bytes
    dependencies: tuple[str, ...]
    python: Python
    lock: str = ""


class Made(msgspec.Struct, frozen=True):
    """Where it runs: the interpreter to start, the lock to keep, and what each phase took."""

    python: str
    key: str = ""
    lock: str = ""
    phases: dict[str, int] = {}  # milliseconds


class Environments(Protocol):
    """What scripts run in, made before they start."""

    async def make(self, wanted: Wanted) -> Made:
        """Make `wanted` runnable, or `Failed` (build_failed) with the resolver's text as `detail`."""
        ...


class EnvironmentsFactory(Factory[Environments], group="bema.environments", api=VERSION, default="uv", opens="waiting"):
    """The environments of an orchestrator, in its state folder."""


@EnvironmentsFactory.register("memory")
class MemoryEnvironments:
    """The twin: nothing is installed; `failures` says by dependency what the resolver would have."""

    def __init__(self) -> None:
        self.made: list[Wanted] = []
        self.failures: dict[str, str] = {}

    @classmethod
    def open(cls, settings: PartSettings) -> Environments:
        return cls()

    async def make(self, wanted: Wanted) -> Made:
        self.made.append(wanted)
        for dependency in wanted.dependencies:
            if text := self.failures.get(dependency):
                raise Failed(text, code="build_failed", detail=text)
        return Made(wanted.python.path, "memory" if wanted.dependencies else "", "lock", {"lock": 0, "install": 0})


@EnvironmentsFactory.register("uv")
class UvEnvironments:
    """Environments made by uv in a folder. A script without dependencies runs on the bare interpreter."""

    def __init__(self, folder: Path, uv: Uv, timeout: float = DEFAULTS.build) -> None:
        self._folder = folder
        self._uv = uv
        self._timeout = timeout

    @classmethod
    def open(cls, settings: PartSettings) -> UvEnvironments:
        return cls(settings.state / "environments", Uv(), settings.limits.build)

    async def make(self, wanted: Wanted) -> Made:
        if not wanted.dependencies:
            return Made(wanted.python.path)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            async with asyncio.timeout(self._timeout):
                with tempfile.TemporaryDirectory(prefix=".lock-", dir=self._folder) as work:
                    return await self._make(wanted, Path(work, "script.py"))
        except TimeoutError as error:
            raise Failed(f"the build took longer than {self._timeout:.0f} s", code="build_failed") from error

    async def _make(self, wanted: Wanted, script: Path) -> Made:
        phases: dict[str, int] = {}
        _lay_out(script, wanted)
        with _timed(phases, "lock"):
            if not wanted.lock:
                await self._run("lock", script, wanted.python)
            exported = await self._run("export", script, wanted.python, "--frozen", "--no-header", "--no-annotate")
        key = key_of(exported, wanted.python)
        with _timed(phases, "install"):
            await self._install(key, script, wanted.python)
        return Made(str(self._folder / key / "bin" / "python"), key, _lock_of(script).read_text(), phases)

    async def _install(self, key: str, script: Path, python: Python) -> None:
        """Have the environment `key`, made by whoever comes first."""
        place = self._folder / key
        if is_complete(place):
            return
        async with exclusive(self._folder / f"{key}.lock") as held:
            if is_complete(place):
                return
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
            # sync, not pip install: it honours the indexes and sources that the script's own block names
            await self._run(
                *("sync", script, python, "--frozen", "--active", "--compile-bytecode"),
                *("--link-mode", await asyncio.to_thread(link_mode, self._folder)),
                place=place,
                held=held,
            )
            await asyncio.to_thread(_complete, place)

    async def _run(
        self, verb: str, script: Path, python: Python, *how: str, place: Path | None = None, held: int | None = None
    ) -> str:
        # uv inherits the file lock: should we be killed, nobody builds there before it has ended too
        return await self._uv.run(
            *(verb, "--script", script.name, "--python", python.path, *how),
            cwd=script.parent,
            timeout=self._timeout,
            env={"VIRTUAL_ENV": str(place)} if place else {},
            keep=() if held is None else (held,),
        )


def _lock_of(script: Path) -> Path:
    return script.with_name(script.name + ".lock")


def _lay_out(script: Path, wanted: Wanted) -> None:
    script.write_bytes(wanted.code)
    if wanted.lock:
        _lock_of(script).write_text(wanted.lock)


def is_complete(place: Path) -> bool:
    return (place / MARKER).exists()


def key_of(requirements: str, python: Python) -> str:
    """The name of an environment: a digest of all that decides what is in it."""
    parts = (requirements, python.path, python.version, sysconfig.get_platform())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@contextlib.asynccontextmanager
async def exclusive(path: Path, pause: float = 0.02) -> AsyncIterator[int]:
    """Hold the file lock `path`, whoever else on this machine wants it; gives its descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _locks(descriptor):  # noqa: ASYNC110 - another process holds it
            await asyncio.sleep(pause)
        yield descriptor
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def link_mode(folder: Path) -> str:
    """`clone` where the file system can share blocks copy-on-write, else `copy`.

    uv itself would fall back from clone to hard links.
    """
    with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as target:
        source.write(b"x")
        source.flush()
        try:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
        except OSError:
            return "copy"
    return "clone"


def _complete(place: Path) -> None:
    """Write the marker when everything before it is on disk."""
    # thousands of small files: one sync of everything is cheaper than one of each
    os.sync()
    (place / MARKER).touch()


@contextlib.contextmanager
def _timed(phases: dict[str, int], name: str, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    begun = clock()
    try:
        yield
    finally:
        phases[name] = round((clock() - begun) * 1000)

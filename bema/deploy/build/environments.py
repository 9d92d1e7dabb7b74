"""What a script runs in: its dependencies locked, then installed once for all scripts with an equal lock.

Laws: the lock belongs to the user and is installed, not resolved, from then on. An environment is named by what is in it
(locked requirements with hashes, the content of what is local, interpreter, platform), is made at its final path under a file
lock, counts only with its completion marker, and shares no file with uv's cache by hard link: a script that writes into it
would change them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import sysconfig
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from bema.core.errors import Failed
from bema.core.limits import DEFAULTS
from bema.core.settings import PartSettings
from bema.core.version import VERSION
from bema.deploy.build.folders import complete, exclusive, is_complete, link_mode, working
from bema.deploy.build.local import LocalPackages, local_packages, packages_of
from bema.deploy.build.progress import Told, unheard
from bema.deploy.build.pythons import Python
from bema.deploy.build.uv import Uv
from bema.deploy.build.variables import build_variables
from bema.parts import Factory

_NOTHING = LocalPackages(frozenset(), frozenset())


class Wanted(msgspec.Struct, frozen=True):
    """What is to be made runnable. `lock` is the earlier lock of this very content, or empty; `options` is what it tells the
    installer besides, as text: how packages are built makes them others."""

    code: bytes
    dependencies: tuple[str, ...]
    python: Python
    lock: str = ""
    options: str = ""


class Made(msgspec.Struct, frozen=True):
    """Where it runs: the interpreter to start, the lock to keep, and what each phase took."""

    python: str
    key: str = ""
    lock: str = ""
    phases: dict[str, int] = {}  # milliseconds


class Environments(Protocol):
    """What scripts run in, made before they start."""

    async def make(self, wanted: Wanted, told: Told = unheard) -> Made:
        """Make `wanted` runnable, or `Failed` (build_failed) with the resolver's text as `detail`.

        `told` is told in a few words what it does meanwhile.
        """
        ...

    async def newest_lock(self, wanted: Wanted) -> str:
        """What a lock of `wanted` would be now, whatever lock it has; nothing is installed. Fails as `make` does."""
        ...


class EnvironmentsFactory(Factory[Environments], group="bema.environments", api=VERSION, default="uv", opens="waiting"):
    """The environments of an orchestrator, in its state folder."""


@EnvironmentsFactory.register("memory")
class MemoryEnvironments:
    """The twin: nothing is installed; `failures` says by dependency what the resolver would have."""

    def __init__(self) -> None:
        self.made: list[Wanted] = []
        self.failures: dict[str, str] = {}
        self.newest = "lock"  # what would be locked now

    @classmethod
    def open(cls, settings: PartSettings) -> Environments:
        return cls()

    async def make(self, wanted: Wanted, told: Told = unheard) -> Made:
        if wanted.dependencies:
            told("resolving what it depends on")
        self.made.append(wanted)
        for dependency in wanted.dependencies:
            if text := self.failures.get(dependency):
                raise Failed(text, code="build_failed", detail=text)
        return Made(wanted.python.path, "memory" if wanted.dependencies else "", "lock", {"lock": 0, "install": 0})

    async def newest_lock(self, wanted: Wanted) -> str:
        return (await self.make(wanted)).lock and self.newest


@EnvironmentsFactory.register("uv")
class UvEnvironments:
    """Environments made by uv in a folder. A script without dependencies runs on the bare interpreter."""

    def __init__(
        self, folder: Path, uv: Uv, timeout: float = DEFAULTS.build, memory: int = DEFAULTS.lock_memory
    ) -> None:
        self._folder = folder
        self._uv = uv
        self._timeout = timeout
        self._memory = memory

    @classmethod
    def open(cls, settings: PartSettings) -> UvEnvironments:
        return cls(settings.state / "environments", Uv(), settings.limits.build, settings.limits.lock_memory)

    async def make(self, wanted: Wanted, told: Told = unheard) -> Made:
        if not wanted.dependencies:
            return Made(wanted.python.path)
        async with self._working(wanted.python, told) as work:
            return await self._make(wanted, work)

    async def newest_lock(self, wanted: Wanted) -> str:
        if not wanted.dependencies:
            return ""
        async with self._working(wanted.python, unheard) as work:
            work.lay_out(msgspec.structs.replace(wanted, lock=""))
            await self._lock(work)
            return work.lock.read_text()

    @contextlib.asynccontextmanager
    async def _working(self, python: Python, told: Told) -> AsyncIterator[_Work]:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            # around all of it: another builder's lock is waited for without a limit of its own
            async with asyncio.timeout(self._timeout):
                async with working(self._folder) as (folder, held):
                    yield _Work(folder, python, held, told)
        except TimeoutError as error:
            raise Failed(f"the build took longer than {self._timeout:.0f} s", code="build_failed") from error

    async def _make(self, wanted: Wanted, work: _Work) -> Made:
        phases: dict[str, int] = {}
        work.lay_out(wanted)
        with _timed(phases, "lock"):
            if not wanted.lock:
                work.told("resolving what it depends on")
                await self._lock(work)
            exported = await self._run("export", work, "--frozen", "--no-header", "--no-annotate", memory=self._memory)
            lock = work.lock.read_text()
            local = await asyncio.to_thread(local_packages, lock)
            content = await local.content(work.folder)
        # both: the export says under which markers a package is installed, the tables from where
        key = key_of("\0".join((exported, packages_of(lock), content, wanted.options)), wanted.python)
        with _timed(phases, "install"):
            await self._install(key, work, local)
        return Made(str(self._folder / key / "bin" / "python"), key, lock, phases)

    async def _lock(self, work: _Work) -> None:
        """Resolve what the script asks for. What is local is looked at again: uv would know it by the time of a few files."""
        seen = _NOTHING
        # below a package that was looked at again there may be new ones, which uv may know of old
        while True:
            await self._run("lock", work, *_afresh(seen), memory=self._memory)
            found = await asyncio.to_thread(local_packages, work.lock.read_text())
            if found.names <= seen.names:
                return
            seen = found
            work.lock.unlink()

    async def _install(self, key: str, work: _Work, local: LocalPackages) -> None:
        """Have the environment `key`, made by whoever comes first."""
        place = self._folder / key
        if is_complete(place):
            return
        async with exclusive(self._folder / f"{key}.lock") as held:
            # asked again: whoever held the lock before us may have made it
            if is_complete(place):
                return
            # uv would go on with what is there, and believe what was half written
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
            work.told("installing what it depends on")
            try:
                # sync, not pip install: it honours the indexes and sources that the script's own
                # block names. --active: a script's environment has its place in uv's cache else,
                # where uv may clean it
                await self._run(
                    *("sync", work, "--frozen", "--active", "--compile-bytecode"),
                    *("--link-mode", await asyncio.to_thread(link_mode, self._folder), *_afresh(local)),
                    place=place,
                    held=held,
                )
                await asyncio.to_thread(complete, place)
            finally:
                # half of it serves nobody, and on a full disk it is what the next attempt lacks
                if not is_complete(place):
                    await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

    async def _run(
        self, verb: str, work: _Work, *how: str, place: Path | None = None, held: int | None = None, memory: int = 0
    ) -> str:
        # uv inherits the file locks: should we be killed, nobody builds or sweeps there before it
        # has ended too. Memory is bounded where versions are resolved, and nowhere else: a compiler
        # may need any amount
        return await self._uv.run(
            *(verb, "--script", work.script.name, "--python", work.python.path, *how),
            cwd=work.folder,
            timeout=self._timeout,
            env=build_variables(os.environ, work.home) | ({"VIRTUAL_ENV": str(place)} if place else {}),
            keep=(work.held,) if held is None else (work.held, held),
            memory=memory,
            told=work.told,
        )


class _Work(NamedTuple):
    """The folder of one build: the script, its lock, a HOME; gone with the build."""

    folder: Path
    python: Python
    held: int
    told: Told

    @property
    def script(self) -> Path:
        return self.folder / "script.py"

    @property
    def lock(self) -> Path:
        return self.folder / "script.py.lock"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def lay_out(self, wanted: Wanted) -> None:
        self.script.write_bytes(wanted.code)
        self.home.mkdir()
        if wanted.lock:
            self.lock.write_text(wanted.lock)


def _afresh(local: LocalPackages) -> list[str]:
    return [argument for name in sorted(local.names) for argument in ("--refresh-package", name)]


def key_of(requirements: str, python: Python) -> str:
    """The name of an environment: a digest of all that decides what is in it."""
    # the path as well as the version: an environment is a link to its interpreter
    parts = (requirements, python.path, python.version, sysconfig.get_platform())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@contextlib.contextmanager
def _timed(phases: dict[str, int], name: str, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    begun = clock()
    try:
        yield
    finally:
        phases[name] = round((clock() - begun) * 1000)

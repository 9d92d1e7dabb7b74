"""The source that is a folder of a git repository, fetched by the real git, at one commit.

Laws: git is told what to connect to, and connects to the address that was checked; it follows no redirect, reads no
configuration, asks nobody, runs no hook, enters no submodule. What it writes is bounded, and gone when the files are read.
A credential travels in its environment, which other users cannot read, and not in its arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bema.core.errors import BemaError, Invalid, Refused, of_code
from bema.core.limits import Limits
from bema.deploy.model.source_fields import Git
from bema.deploy.sources.archives import unpack
from bema.deploy.sources.fetch import Fetcher, WebPlace, in_time, place_of
from bema.deploy.sources.source import Fetched, SourceOrigin, fields
from bema.deploy.sources.tree import bundle_of, check_counts, check_path

_REF: Final = re.compile(r"[A-Za-z0-9_][\w./@+-]{0,199}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_VERSION: Final = re.compile(r"(\d+)\.(\d+)")
_OLDEST: Final = (2, 37)
_MEMORY: Final = 2 * 1024 * 1024  # KiB: what unpacks deltas may be told to take any amount
_HISTORY: Final = 4  # times the files: of one commit, packed, more is no code
_SAID: Final = 2000
_PIECE: Final = 64 * 1024
# `ulimit` and not a hook between fork and exec: that is no place for code where threads run. Without
# the signal git can say what it died of
_BOUNDED: Final = 'trap "" XFSZ; ulimit -c 0; ulimit -f "$1"; ulimit -v "$2"; shift 2; exec "$@"'
_CODES: Final = (
    (re.compile(r"file too large", re.I), "source_too_large"),
    (re.compile(r"could not read (username|password)|authentication failed|error: 40[13]", re.I), "source_denied"),
    (
        re.compile(r"remote ref|not our ref|not found|unadvertised|not a (tree|valid)|error: 404", re.I),
        "source_not_found",
    ),
    (re.compile(r"unable to update url base from redirection|error: 30\d", re.I), "source_refused"),
)
"""What git says of a failure, and the code that it means."""


class GitSource:
    """`url`, https or http; `ref`, a branch, a tag or a whole commit; `path`, the folder of it that is the source."""

    def __init__(
        self, url: str, fetcher: Fetcher, limits: Limits, *, ref: str = "", path: str = "", entry: str = ""
    ) -> None:
        self._place = place_of(url.removeprefix("git+"))
        if ref and (not _REF.fullmatch(ref) or ".." in ref):
            raise Invalid(f"{ref[:80]!r} is no branch, tag or commit")
        if path := path.strip("/"):
            check_path(path)
        self._fetcher = fetcher
        self._limits = limits
        self._ref = ref
        self._path = path
        self._entry = entry

    @classmethod
    def of(cls, said: Mapping[str, Any], limits: Limits) -> GitSource:
        given = fields(said, Git)
        return cls(given.url, Fetcher(limits), limits, ref=given.ref, path=given.path, entry=given.entry)

    async def fetch(self) -> Fetched:
        """
        Raises:
            Invalid: repository, ref or path is not there (source_not_found), wants a credential (source_denied), or lies where
                code is not fetched from (source_refused).
            Refused: there is no git on this machine, or one that is too old (not_supported).
        """
        async with in_time(self._limits), _Repository.made(self._place, self._fetcher, self._limits) as repository:
            commit = await repository.fetch(self._ref or "HEAD")
            content = await repository.archive(commit, self._path)
        files = await asyncio.to_thread(unpack, content, self._limits)
        where = f"git+{self._place.shown}" + (f"#{self._path}" if self._path else "")
        return Fetched(bundle_of(files, self._limits, self._entry), SourceOrigin("git", where, commit))


class _Repository:
    """A bare repository of one commit, in a folder that is gone after the block."""

    def __init__(self, folder: Path, git: str, place: WebPlace, address: str, limits: Limits) -> None:
        self._folder = folder
        self._git = git
        self._url = place.origin + place.target
        self._limits = limits
        self._env = _environment(folder, place, address)

    @classmethod
    @contextlib.asynccontextmanager
    async def made(cls, place: WebPlace, fetcher: Fetcher, limits: Limits) -> AsyncIterator[_Repository]:
        git = shutil.which("git")
        if git is None:
            raise Refused("there is no git on this machine", fix="Install git where the platform runs.")
        address, *_ = await fetcher.checked(place)
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="bema-git-"))
        try:
            repository = cls(folder, git, place, address, limits)
            await repository._check_version()
            await repository._run("init", "-q", "--bare", "--template=", ".")
            yield repository
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _check_version(self) -> None:
        # an older one would pass over the address that it is told, and look the name up by itself
        said = (await self._run("version")).decode(errors="replace").strip()
        found = _VERSION.search(said)
        if found is None or (int(found[1]), int(found[2])) < _OLDEST:
            message = f"{said or 'this git'} cannot be told which address to connect to"
            raise Refused(message, fix=f"Install git {_OLDEST[0]}.{_OLDEST[1]} or newer where the platform runs.")

    async def fetch(self, ref: str) -> str:
        """The commit that `ref` names. Shallow: there is no other way to know how much comes, and no dumb server takes it."""
        await self._run("fetch", "-q", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", self._url, ref)
        commit = (await self._run("rev-parse", "--verify", "FETCH_HEAD^{commit}")).decode().strip()
        if _COMMIT.fullmatch(ref) and commit != ref:
            raise Invalid(f"{self._url} has no commit {ref}", code="source_not_found")
        return commit

    async def archive(self, commit: str, path: str) -> bytes:
        """A tar of the files below `path`."""
        return await self._run("archive", "--format=tar", f"{commit}:{path}" if path else commit)

    async def _run(self, *arguments: str) -> bytes:
        # in blocks of 512 bytes
        blocks = str(_HISTORY * self._limits.source_bytes // 512)
        child = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", _BOUNDED, "sh", blocks, str(_MEMORY), self._git, *arguments),
            cwd=self._folder,
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # git has children of its own
            start_new_session=True,
        )
        assert child.stdout is not None
        assert child.stderr is not None
        # each entry has a head, and more of it where its name is long
        most = self._limits.source_bytes + 4096 * self._limits.source_files
        try:
            out = _first(child.stdout, most + 1, lambda: _kill(child))
            taken, said, code = await asyncio.gather(out, _first(child.stderr, _SAID), child.wait())
        finally:
            # its children as well, which may outlive it; what they said is read, or their pipes stay open
            _kill(child)
            await child.communicate()
        if len(taken) > most:
            check_counts(1, len(taken), self._limits)
        if code != 0:
            raise self._failed(said.decode(errors="replace"))
        return taken

    def _failed(self, said: str) -> BemaError:
        code = next((code for pattern, code in _CODES if pattern.search(said)), "source_unreachable")
        if code == "source_too_large":
            said = f"the repository is larger than {_HISTORY} times {self._limits.source_bytes} bytes (source_bytes)"
        return of_code(code, f"git fetches nothing of {self._url}: {said.strip()}")


async def _first(stream: asyncio.StreamReader, most: int, full: Callable[[], None] = lambda: None) -> bytes:
    """The first `most` bytes of what is said, which may go on without end; `full` is called once they are there."""
    kept = bytearray()
    while piece := await stream.read(_PIECE):
        if len(kept) < most:
            kept += piece[: most - len(kept)]
            if len(kept) == most:
                full()
    return bytes(kept)


def _kill(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _environment(folder: Path, place: WebPlace, address: str) -> dict[str, str]:
    shown = f"[{address}]" if ":" in address else address
    configuration = {
        "core.hooksPath": os.devnull,
        "http.curloptResolve": f"{place.host}:{place.port}:{shown}",
        "http.followRedirects": "false",
        "http.proxy": "",
        "fetch.unpackLimit": "1",  # one file of objects, whose size is bounded
        "transfer.fsckObjects": "true",
        "pack.threads": "1",
        "gc.auto": "0",
        "tar.umask": "022",
    }
    if place.credential:
        configuration["http.extraHeader"] = f"Authorization: {place.credential}"
    env = {name: os.environ[name] for name in ("PATH", "SSL_CERT_FILE", "GIT_SSL_CAINFO") if name in os.environ}
    env |= {
        "HOME": str(folder),
        "LC_ALL": "C",
        "GIT_DIR": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "https:http",
        "GIT_CONFIG_COUNT": str(len(configuration)),
    }
    for n, (key, value) in enumerate(configuration.items()):
        env |= {f"GIT_CONFIG_KEY_{n}": key, f"GIT_CONFIG_VALUE_{n}": value}
    return env

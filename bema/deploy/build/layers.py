"""The platform layer: bema's own part of a deployed script, in a folder of its own.

Laws: the folder is named by its content and never changes once it is there; the runner appends it last to `sys.path`, so
whatever the script's own environment has comes first. It is copied from what runs here, so it needs no network; only for
another minor version of Python, compiled parts are fetched at the very versions that run here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePath

import bema
from bema.core.errors import Failed, Refused
from bema.core.version import VERSION
from bema.deploy.build.folders import exclusive, working
from bema.deploy.build.pythons import Python
from bema.deploy.build.uv import Uv
from bema.deploy.build.variables import build_variables

NEEDED = ("msgspec", "click", "uvicorn", "h11")
WELCOME = ("httptools", "uvloop", "a2wsgi", "cronsim")
"""Used where they are: faster parsing, a faster loop, WSGI, schedules by a cron line."""


class Layers:
    """Platform layers in a folder, one per content and Python version."""

    def __init__(self, folder: Path, uv: Uv) -> None:
        self._folder = folder
        self._uv = uv
        self._known: dict[tuple[int, ...], Path] = {}

    async def layer(self, python: Python) -> Path:
        """The layer for scripts that run on `python`, made if need be; what runs here does not change meanwhile."""
        version = python.release[:2]
        if version not in self._known:
            self._known[version] = await self._made(python)
        return self._known[version]

    async def _made(self, python: Python) -> Path:
        parts = await asyncio.to_thread(_parts)
        place = self._folder / await asyncio.to_thread(_key, parts, python)
        if await asyncio.to_thread(place.exists):
            await asyncio.to_thread(touch, place)
            return place
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        async with exclusive(self._folder / f"{place.name}.lock"):
            if not await asyncio.to_thread(place.exists):
                async with working(self._folder) as (work, _):
                    await self._make(parts, python, work / "layer", place)
        return place

    async def _make(self, parts: list[Distribution], python: Python, work: Path, place: Path) -> None:
        await asyncio.to_thread(_copy_bema, work)
        if python.release[:2] == sys.version_info[:2]:
            for part in parts:
                await asyncio.to_thread(_copy, part, work)
        else:
            # pinned and without their dependencies: what runs here fits together, and a resolver
            # could choose otherwise
            pins = [f"{part.name}=={part.version}" for part in parts]
            await self._uv.run(
                *("pip", "install", "--no-deps", "--only-binary", ":all:", "--link-mode", "copy"),
                *("--python", python.path, "--target", str(work), *pins),
            )
        await asyncio.to_thread(_compile, python, work, place)
        # a layer needs no marker: by one rename it is there whole, or not at all
        await asyncio.to_thread(work.rename, place)


def _parts() -> list[Distribution]:
    """The distributions a layer is made of, as they are installed here."""
    missing = [name for name in NEEDED if _installed(name) is None]
    if missing:
        raise Refused(f"deploying needs {', '.join(missing)}: install bema[platform]", code="missing_extra")
    return [part for name in (*NEEDED, *WELCOME) if (part := _installed(name)) is not None]


def _installed(name: str) -> Distribution | None:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    # metadata without files is left by an uninstaller, or the system's: there is nothing to copy
    return found if found.files else None


def _key(parts: list[Distribution], python: Python) -> str:
    digest = hashlib.sha256(f"{python.release[:2]} {sysconfig.get_platform()}\n".encode())
    # RECORD has a digest of every file of a distribution; bema may be a checkout, which has none,
    # and is read itself
    for part in parts:
        digest.update(f"{part.name} {part.version}\n{part.read_text('RECORD')}\n".encode())
    for path in _files_of_bema():
        digest.update(f"{path}\0".encode() + hashlib.sha256((_BEMA / path).read_bytes()).digest())
    for name, text in sorted(_metadata_of_bema().items()):
        digest.update(f"{name}\0{text}\0".encode())
    return digest.hexdigest()


_BEMA = Path(bema.__file__).parent


def _files_of_bema() -> Iterator[PurePath]:
    """bema's own files, wherever it was imported from: an installed copy or a checkout."""
    for path in sorted(_BEMA.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(_BEMA)


def _metadata_of_bema() -> dict[str, str]:
    """What says of bema in a script which parts it names by entry point; of a checkout, as its project file has it."""
    try:
        known = distribution("bema")
        entries = known.read_text("entry_points.txt") or ""
    except PackageNotFoundError:
        entries = _entries(_BEMA.parent / "pyproject.toml")
    return {"METADATA": f"Metadata-Version: 2.1\nName: bema\nVersion: {VERSION}\n", "entry_points.txt": entries}


def _entries(project: Path) -> str:
    try:
        groups = tomllib.loads(project.read_text(encoding="utf-8"))["project"].get("entry-points", {})
    except (OSError, KeyError):
        return ""
    rows = (
        (f"[{group}]", *(f"{name} = {value}" for name, value in points.items())) for group, points in groups.items()
    )
    return "".join(f"{row}\n" for group in rows for row in group)


def _copy_bema(target: Path) -> None:
    for path in _files_of_bema():
        _copy_file(_BEMA / path, target / "bema" / path)
    folder = target / f"bema-{VERSION}.dist-info"
    folder.mkdir()
    for name, text in _metadata_of_bema().items():
        (folder / name).write_text(text, encoding="utf-8")


def _copy(part: Distribution, target: Path) -> None:
    for path in part.files or ():
        outside = path.is_absolute() or ".." in path.parts  # scripts of the distribution
        if not outside and "__pycache__" not in path.parts:
            _copy_file(Path(str(part.locate_file(path))), target / path)


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # metadata may name files that an installer leaves out
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(source, target)


# what is named by its content needs no look at its sources' times
def _compile(python: Python, work: Path, place: Path) -> None:
    """Bytecode that never looks at its source again, named as if it had been made in place."""
    done = subprocess.run(
        [
            *(python.path, "-I", "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash"),
            *("-s", str(work), "-p", str(place), str(work)),
        ],
        env=build_variables(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        last = said.rpartition("\n")[2]
        raise Failed(
            f"the platform layer does not compile on Python {python.version}: {last}", code="build_failed", detail=said
        )


def touch(path: Path) -> None:
    """Say that a folder is in use; what was touched within the week is not swept."""
    with contextlib.suppress(OSError):
        path.touch()

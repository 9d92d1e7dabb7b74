"""ScriptEnvironment: the Python that a file asks for in its PEP 723 block, for `bema run` and `bema dev`.

Laws: a file that names what is installed here runs here, at no cost; any other runs in the environment that a deployment of it
would have, made once. bema comes to it as to a deployment, last on `sys.path`, so that the file's own versions win. The
block is resolved once and its lock kept, so that a file runs without a network, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import re
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

import msgspec

from bema.core.errors import BemaError
from bema.core.settings import Settings, load
from bema.core.versions import satisfies
from bema.deploy.build.environments import EnvironmentsFactory, Made, Wanted
from bema.deploy.build.layers import Layers, touch
from bema.deploy.build.pythons import FoundPythons, Python
from bema.deploy.build.uv import Uv
from bema.deploy.sources.pep723 import OPENING, ScriptMetadata, read_metadata
from bema.runtime.folders import prepare

# what is more than a name and versions, a URL, an extra or a marker, is left to who resolves it
_PLAIN = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*((?:[~=!<>]=?=?[^;@\[]*)?)\s*")
_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from bema.cli import main; sys.exit(main(sys.argv[1:]))"


def fits(metadata: ScriptMetadata) -> bool:
    """Whether this very process can run it: its Python, and the versions that are installed."""
    return satisfies(sys.version_info[:3], metadata.requires_python) and all(map(_is_here, metadata.dependencies))


def _is_here(dependency: str) -> bool:
    plain = _PLAIN.fullmatch(dependency)
    if plain is None:
        return False
    try:
        return satisfies(version(plain[1]), plain[2])
    except (PackageNotFoundError, ValueError):
        return False


def enter(file: Path, arguments: list[str], tell: Callable[[str], None]) -> None:
    """Go on as `bema ARGUMENTS` in the environment of the file, where this is not one; returns where it is.

    `tell` is told what is made, which may take a while.

    Raises:
        Invalid: the block is malformed, or no Python here is what it asks for.
        Failed: what it asks for cannot be installed (code `build_failed`).
    """
    try:
        code = file.read_bytes()
        metadata = read_metadata(code.decode().removeprefix("\ufeff"))
    except (OSError, UnicodeDecodeError):
        return  # whoever loads it says so
    if not fits(metadata):
        tell(f"making an environment with {', '.join(metadata.dependencies) or metadata.requires_python}")
        python, layer = asyncio.run(_made(code, metadata, load()))
        _exec(python, layer, arguments)


def _exec(python: str, layer: Path, arguments: list[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # as this process: who started us knows our pid, our channel and our terminal
    os.execv(python, [python, "-P", "-c", _BOOT, str(layer), *arguments])


async def _made(code: bytes, metadata: ScriptMetadata, settings: Settings) -> tuple[str, Path]:
    state, uv = Path(settings.text("state_dir")), Uv()
    prepare(state)
    try:
        python = await FoundPythons(uv).choose(metadata.requires_python)
        made = await _environment(code, metadata, python, settings)
        return made.python, await Layers(state / "layers", uv).layer(python)
    except BemaError as error:
        # what the resolver said is shown like the last lines of a log
        if detail := error.details.pop("detail", ""):
            error.details["log"] = [line for line in str(detail).splitlines() if line.strip()]
        error.fix = f"{error.fix} With --here it runs in the Python that runs bema, as that is."
        raise


async def _environment(code: bytes, metadata: ScriptMetadata, python: Python, settings: Settings) -> Made:
    """As a deployment has it; a file that was edited below its block has the same."""
    state = Path(settings.text("state_dir"))
    asked = msgspec.json.encode([metadata, python.path, python.version])
    kept = state / "scripts" / f"{hashlib.sha256(asked + _block(code)).hexdigest()}.lock"
    lock = kept.read_text() if kept.exists() else ""
    environments = await EnvironmentsFactory.open_waiting(settings)
    made = await environments.make(Wanted(code, metadata.dependencies, python, lock, metadata.options))
    if made.lock != lock:
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        draft = kept.with_name(f".{kept.name}.{os.getpid()}")
        draft.write_text(made.lock)
        draft.rename(kept)
    touch(Path(made.python).parent.parent)  # what was used within the week is not swept
    return made


def _block(code: bytes) -> bytes:
    """The block, to the end of its comment lines: indexes and sources that it names count, too."""
    opening = itertools.dropwhile(lambda line: line != OPENING, code.decode().splitlines())
    return "\n".join(itertools.takewhile(lambda line: line.startswith("#"), opening)).encode()

"""From a Bundle to a version that may be stored: grammar, metadata, entry.

Law: everything a script can be refused for without running it is refused here, before anything is stored or started.
Nothing of the script runs: it is compiled by a child of the interpreter it will run on, and thrown away.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec

from bema.core.errors import BemaError, Invalid
from bema.deploy.build.pythons import Python, Pythons
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.deployment import ScriptEntry
from bema.deploy.sources import entry as entry_module
from bema.deploy.sources.pep723 import ScriptMetadata, read_metadata

_INSPECTOR = str(Path(entry_module.__file__).resolve())
_INSPECTION = 10.0


class Inspected(msgspec.Struct, frozen=True):
    """What was found in a Bundle that passed."""

    metadata: ScriptMetadata
    entry: ScriptEntry
    python: Python


async def inspect(bundle: Bundle, pythons: Pythons) -> Inspected:
    """The findings, or the error that the script's author should see."""
    content = bundle.script
    metadata = read_metadata(_decoded(content).removeprefix("\ufeff"))
    python = await pythons.choose(metadata.requires_python)
    found = await _found(content, metadata.entry, python)
    if "error" in found:
        raise _of_finding(found, metadata)
    return Inspected(metadata, ScriptEntry(found["kind"], found["name"]), python)


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise Invalid(
            f"line {line}, column {column}: the script is not UTF-8", code="syntax_error", line=line, column=column
        ) from error


async def _found(content: bytes, wanted: str, python: Python) -> dict[str, Any]:
    # `-I -S`: no package, no .pth file and no variable has a say in how a text is read
    child = await asyncio.create_subprocess_exec(
        python.path,
        "-I",
        "-S",
        _INSPECTOR,
        wanted,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        # a text that was made for it can hold a compiler for long: the time is taken from the child
        async with asyncio.timeout(_INSPECTION):
            said, _ = await child.communicate(content)
    except TimeoutError:
        said = b""
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        # the compiler itself gave up: recursion past the C stack, or no end of work
        return {"error": "syntax_error", "message": "line 1, column 1: too complex to compile", "line": 1, "column": 1}
    found: dict[str, Any] = json.loads(said)
    return found


def _of_finding(found: dict[str, Any], metadata: ScriptMetadata) -> BemaError:
    details = {key: value for key, value in found.items() if key not in ("error", "message")}
    if found["error"] == "entry_not_found":
        details["line"] = metadata.entry_line
    return Invalid(found["message"], code=found["error"], **details)

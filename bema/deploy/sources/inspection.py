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
from bema.core.limits import DEFAULTS, Limits
from bema.deploy.build.pythons import Python, Pythons
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.deployment import ScriptEntry
from bema.deploy.sources import entry as entry_module
from bema.deploy.sources.bounded import ChildBounds, Crossed, answer_of
from bema.deploy.sources.pep723 import ScriptMetadata
from bema.deploy.sources.project import requirements_of

_INSPECTOR = str(Path(entry_module.__file__).resolve())
_SHOWN = 100
"""Names of a script that its author is told, and"""
_LONGEST = 4000
"""the characters of a message with more."""


class Inspected(msgspec.Struct, frozen=True):
    """What was found in a Bundle that passed."""

    metadata: ScriptMetadata
    entry: ScriptEntry
    python: Python


async def inspect(bundle: Bundle, pythons: Pythons, limits: Limits = DEFAULTS) -> Inspected:
    """The findings, or the error that the script's author should see."""
    content = bundle.script
    # a thread: within its limits a block takes some milliseconds, which nobody else should wait
    _check_encoding(content)
    metadata = (await asyncio.to_thread(requirements_of, bundle, limits.script_block)).metadata
    python = await pythons.choose(metadata.requires_python)
    found = await _found(content, metadata.entry, python, limits)
    if "error" in found:
        raise _of_finding(found, metadata)
    return Inspected(metadata, ScriptEntry(found["kind"], found["name"], bundle.entry), python)


def _check_encoding(content: bytes) -> None:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise Invalid(
            f"line {line}, column {column}: the script is not UTF-8", code="syntax_error", line=line, column=column
        ) from error


async def _found(content: bytes, wanted: str, python: Python, limits: Limits) -> dict[str, Any]:
    argv = (python.path, "-I", "-S", _INSPECTOR, wanted)
    try:
        said = await answer_of(argv, content, ChildBounds(limits.script_memory, limits.script_time))
    except Crossed as crossed:
        message = f"line 1, column 1: too complex to compile: {crossed}"
        return {"error": "syntax_error", "message": message, "line": 1, "column": 1}
    found: dict[str, Any] = json.loads(said)
    return found


def _of_finding(found: dict[str, Any], metadata: ScriptMetadata) -> BemaError:
    # a script of a megabyte has room for a hundred thousand names
    if len(found.get("names", ())) > _SHOWN:
        found["names"] = found["names"][:_SHOWN]
        found["message"] = f"{found['message'][:_LONGEST]}..."
    details = {key: value for key, value in found.items() if key not in ("error", "message")}
    if found["error"] == "entry_not_found":
        details["line"] = metadata.entry_line
    return Invalid(found["message"], code=found["error"], **details)

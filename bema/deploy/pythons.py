"""The interpreters of this machine, and which of them a script runs on.

Law: the interpreter bema runs on is preferred whenever `requires-python` allows it, so that most scripts share one; none
is ever downloaded.
"""

from __future__ import annotations

import platform
import sys
from typing import Protocol

import msgspec

from bema.core.errors import Invalid
from bema.deploy.specifiers import Release, satisfies
from bema.deploy.uv import Uv

OLDEST = (3, 11)
"""The oldest Python that can hold bema's own part of a deployed script."""


class Python(msgspec.Struct, frozen=True):
    path: str
    release: Release

    @property
    def version(self) -> str:
        return ".".join(map(str, self.release))


class Pythons(Protocol):
    async def choose(self, requires: str) -> Python:
        """An interpreter that satisfies `requires`; `Invalid` (python_unavailable) listing those there are."""
        ...


def own_python() -> Python:
    """The interpreter under our own environment."""
    # set in and outside of virtual environments; an embedded interpreter has only the former
    path = getattr(sys, "_base_executable", None) or sys.executable
    return Python(path, sys.version_info[:3])


class FoundPythons:
    """Our own, then what uv finds on this machine, newest first; searched when our own does not fit."""

    def __init__(self, uv: Uv) -> None:
        self._uv = uv

    async def choose(self, requires: str) -> Python:
        own = own_python()
        if satisfies(own.release, requires):
            return own
        found = [own, *await self._others(own)]
        fitting = [python for python in found if satisfies(python.release, requires)]
        if not fitting:
            have = list(dict.fromkeys(python.version for python in found))
            raise Invalid(
                f"the script requires Python {requires}; this machine has {', '.join(have)}",
                code="python_unavailable",
                requires=requires,
                available=have,
            )
        return max(fitting, key=lambda python: python.release)

    async def _others(self, own: Python) -> list[Python]:
        listed = await self._uv.run(
            "python", "list", "--only-installed", "--no-python-downloads", "--output-format", "json"
        )
        rows = msgspec.json.decode(listed, type=list[_Row])
        return [
            Python(row.path, row.release)
            for row in rows
            if row.implementation == platform.python_implementation().lower()
            and row.release >= OLDEST
            and row.release != own.release
        ]


class _Row(msgspec.Struct):
    path: str
    version_parts: dict[str, int]
    implementation: str

    @property
    def release(self) -> Release:
        return tuple(self.version_parts[part] for part in ("major", "minor", "patch"))

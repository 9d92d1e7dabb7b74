"""The interpreters of this machine, and which of them a script runs on.

Law: the interpreter bema runs on is preferred whenever `requires-python` allows it, so that most scripts share one; none
is ever downloaded.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import Protocol

import msgspec

from bema.core.errors import Failed, Invalid
from bema.core.versions import Release, satisfies
from bema.deploy.build.uv import Uv

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
    """Our own, else the one uv finds first on this machine."""

    def __init__(self, uv: Uv) -> None:
        self._uv = uv
        self._known: dict[str, Python] = {}

    async def choose(self, requires: str) -> Python:
        own = own_python()
        if satisfies(own.release, requires):
            return own
        # an interpreter may be upgraded away while we run
        known = self._known.get(requires)
        if known is None or not os.access(known.path, os.X_OK):
            known = self._known[requires] = await self._find(requires) or await self._newest(requires, own)
        return known

    async def _find(self, requires: str) -> Python | None:
        """The first that fits; uv stops looking there, where listing them all may take seconds."""
        # twice: uv prints the path or the version. --no-project: a pyproject.toml above our folder
        # is none of the script's
        try:
            path = await self._uv.run("python", "find", "--system", "--no-project", requires)
            version = await self._uv.run("python", "find", "--system", "--no-project", "--show-version", path.strip())
        except Failed:
            return None
        release = tuple(int(part) for part in version.strip().split(".") if part.isdecimal())
        return Python(path.strip(), release) if release >= OLDEST and satisfies(release, requires) else None

    async def _newest(self, requires: str, own: Python) -> Python:
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
        listed = await self._uv.run("python", "list", "--only-installed", "--output-format", "json")
        return [
            Python(row.path, row.release)
            for row in msgspec.json.decode(listed, type=list[_Row])
            if row.implementation == platform.python_implementation().lower()
            and row.release >= OLDEST
            # of our own release it is our own that scripts share
            and row.release != own.release
        ]


class _Row(msgspec.Struct):
    path: str
    version_parts: dict[str, int]
    implementation: str

    @property
    def release(self) -> Release:
        return tuple(self.version_parts[part] for part in ("major", "minor", "patch"))

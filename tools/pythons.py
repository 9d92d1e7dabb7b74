"""The other Pythons of this machine, on which the runtime's suite runs too.

Law: one is there when it runs. A version manager's shim is often on PATH and starts nothing; what it manages is below
`~/.pyenv/versions`. `BEMA_OTHER_PYTHONS` (paths, separated as in PATH) says which there are to a run without that home.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

VARIABLE = "BEMA_OTHER_PYTHONS"
NAMES = ("python3.12", "python3.13")


def other_pythons(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """By name, the first that runs and is of that version."""
    found = {name: next((path for path in candidates(name, environment) if is_one(path, name)), "") for name in NAMES}
    return {name: path for name, path in found.items() if path}


def candidates(name: str, environment: Mapping[str, str]) -> Iterator[str]:
    if VARIABLE in environment:
        yield from filter(None, environment[VARIABLE].split(os.pathsep))
        return
    for folder in environment.get("PATH", os.defpath).split(os.pathsep):
        if found := shutil.which(name, path=folder):
            yield found
    managed = Path(environment.get("HOME") or "/nonexistent", ".pyenv", "versions")
    yield from map(str, sorted(managed.glob(f"*/bin/{name}"), reverse=True))


def is_one(path: str, name: str) -> bool:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and bool(re.match(rf"Python {name.removeprefix('python')}\.", done.stdout))

"""`dev.py ci`: what CI runs once `.ci/run` has installed what it may.

Law: the two commands as a new user types them: on this Python, with the PATH of a plain system and a home in which there
is nothing. Told beside are CI itself, where the other Pythons are, and the way to the package registries.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tools import registries
from tools.pythons import VARIABLE, other_pythons

PATH = "/usr/bin:/bin"
TOTAL = re.compile(r"(\d+) passed, (\d+) failed")


def ci(program: Path, arguments: list[str]) -> int:
    """Run both commands; the last line adds what they counted."""
    with tempfile.TemporaryDirectory(prefix="bema-home-") as home:
        registries.give_to(Path(home), os.environ)
        environment = surroundings(os.environ, home)
        began = time.monotonic()
        tested, passed, failed = counted([sys.executable, str(program), "test", *arguments], environment)
        print(f"\n== dev.py test: {time.monotonic() - began:.0f} s, exit {tested}", flush=True)
        began = time.monotonic()
        bare = subprocess.run([sys.executable, str(program), "bare", "up", "--check"], env=environment, check=False)
        print(f"\n== dev.py bare up --check: {time.monotonic() - began:.0f} s, exit {bare.returncode}")
    passed, failed = passed + (bare.returncode == 0), failed + (bare.returncode != 0)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if tested or failed else 0


def surroundings(given: Mapping[str, str], home: str) -> dict[str, str]:
    found = {"PATH": PATH, "HOME": home, VARIABLE: os.pathsep.join(other_pythons(given).values())}
    return found | ({"CI": given["CI"]} if "CI" in given else {}) | registries.variables(given)


def counted(command: list[str], environment: Mapping[str, str]) -> tuple[int, int, int]:
    """Exit code, passed and failed of a command whose last line is its total; without one, one failure."""
    last = ""
    with subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line
    code = process.returncode
    found = TOTAL.match(last)
    return (code, int(found[1]), int(found[2])) if found else (code, 0, 1)

"""Ends what a killed test run leaves: whoever was started with its `MARK` in the environment.

`undertaker.py MARK` reads a pipe that closes with the run. What drops its environment is below a warden of the platform that
started it, and ends with that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "TEST_RUN_OF_BEMA"


@contextlib.contextmanager
def undertaker() -> Iterator[None]:
    """Whoever is started within ends when this process is killed."""
    reading, writing = os.pipe()
    mark = f"{os.getpid()}-{os.urandom(4).hex()}"
    # one for each worker too: it bears the mark of who started it, and must outlive that
    before = os.environ.pop(VARIABLE, None)
    waiting = subprocess.Popen([sys.executable, "-I", __file__, f"{VARIABLE}={mark}"], stdin=reading)
    os.close(reading)
    os.environ[VARIABLE] = mark
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
        waiting.kill()
        waiting.wait()
        os.close(writing)


def marked(mark: str) -> list[int]:
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if mark.encode() in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
    return found


def main(mark: str) -> None:
    # platforms end by themselves, and know more of what they started than can be found from here
    os.read(0, 1)
    time.sleep(1.0)
    while pids := marked(mark):
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])

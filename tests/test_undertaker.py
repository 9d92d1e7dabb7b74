"""A test run that is killed leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.undertaker import VARIABLE

RUN = """
import subprocess, sys, time
from tests.undertaker import undertaker

with undertaker():
    for command in (["sleep", "600"], ["setsid", "sleep", "600"]):
        print(subprocess.Popen(command).pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="who is marked is read from /proc")
def test_whoever_was_started_by_a_killed_run_ends():
    with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        started = [int(run.stdout.readline()) for _ in range(2)]
        os.kill(run.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(lives, started)):
        assert time.monotonic() < deadline, "it lives"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_this_run_is_marked():
    assert os.environ[VARIABLE].startswith(f"{os.getpid()}-")

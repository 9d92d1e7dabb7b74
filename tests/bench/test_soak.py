"""The soaks in short; at length they are `python3 dev.py soak NAME`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import tool

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "short", "says"),
    [
        ("many", ["--calls", "2000"], "2,000 calls at once, 11 items each, 0 errors"),
        ("items", ["--items", "300000", "--streams", "200"], "300,000 items over 200 streams in order"),
        ("deploys", ["--cycles", "3"], "3 scripts deployed, asked and removed"),
        ("redeploys", ["--redeploys", "20"], "20 redeploys, "),
        ("streams", ["--kills", "12", "--drains", "6", "--streams", "8", "--items", "300"], "0 items lost, 0 doubled"),
        ("simulation", ["--schedules", "100"], "100 schedules from seed"),
        ("durable", ["--rounds", "3"], "0 promises broken"),
        ("deaths", ["--rounds", "4"], "0 lost, 0 changed"),
        ("large", ["--flight", "16"], "cycle 3: 64 calls of 1 MiB"),
    ],
)
def test_a_soak_in_short_is_steady(name, short, says):
    if name == "durable":
        tool("strace")
    done = subprocess.run(
        [sys.executable, "-m", f"bench.soak.{name}", *short], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert says in done.stdout

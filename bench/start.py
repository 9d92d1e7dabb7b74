"""Start to ready: a service class, from `python3 FILE` to its ready line, against `python -c "import asyncio, msgspec"`.

    python3 dev.py bench start [--rounds N] [--json FILE]

Interleaved rounds, medians; exit 1 when the difference is over the budget.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.harness import clean_environment, median

BUDGET_MS = 100.0
WORKER = Path(__file__).parents[1] / "examples" / "worker.py"
BASE = [sys.executable, "-c", "import asyncio, msgspec; print('ready', flush=True)"]


def until_line(command: list[str], env: dict[str, str]) -> float:
    """Milliseconds from the start of the process to its first line."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    line = process.stdout.readline()
    took = (time.perf_counter() - began) * 1000
    process.send_signal(signal.SIGTERM)
    process.stdout.read()
    process.wait()
    if b"ready" not in line:
        raise SystemExit(f"{' '.join(command)} did not become ready: {line!r}")
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        env = {**clean_environment(), "BEMA_STATE_DIR": state}
        commands = {"base": BASE, "start": [sys.executable, os.fspath(WORKER)]}
        for command in commands.values():  # bytecode is written by the first
            until_line(command, env)
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(chosen.rounds):
            for name, command in commands.items():
                took[name].append(until_line(command, env))
    base, start = median(took["base"]), median(took["start"])
    print(f"import asyncio, msgspec   {base:7.1f} ms")
    print(f"examples/worker.py ready  {start:7.1f} ms")
    print(f"difference                {start - base:7.1f} ms   (at most {BUDGET_MS:g})")
    if chosen.json:
        chosen.json.write_text(json.dumps({"base_ms": base, "start_ms": start, "difference_ms": start - base}))
    return 0 if start - base <= BUDGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())

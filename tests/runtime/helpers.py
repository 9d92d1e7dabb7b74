"""Small things the runtime's tests share."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bema.core.instance import EndpointInfo, Instance
from bema.core.naming import new_instance_id
from bema.runtime.processes import process_start


def an_instance(component: str = "worker", **fields: object) -> Instance:
    about = {
        "id": new_instance_id(),
        "namespace": "demo",
        "component": component,
        "endpoints": (EndpointInfo("generate"),),
        "addresses": {"rpc": ("unix:/nowhere.sock",)},
        "pid": os.getpid(),
        "process_start": process_start(os.getpid()) or 0,
        **fields,
    }
    return Instance(**about)  # type: ignore[arg-type]


async def until(true: Callable[[], bool], within: float = 5.0) -> float:
    """Wait for what the operating system does in its own time; returns how long it took."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < within, "it did not come true in time"
        await asyncio.sleep(0.002)
    return time.monotonic() - started


def spawn(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Another process running `code`; it prints a line when it is ready."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def said_ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, "the process ended before it was ready"
    return line

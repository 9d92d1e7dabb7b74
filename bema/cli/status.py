"""`bema status`: what runs on this state directory, and where it is reached."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from pathlib import Path
from typing import Any

import click

from bema import system
from bema.cli import output
from bema.core.errors import Unavailable
from bema.core.settings import load


@click.command()
@output.json_option
def command(as_json: bool) -> None:
    """What runs, and where it is reached."""
    settings = load()
    status = status_of(Path(settings.text("state_dir")))
    if as_json:
        output.print_json(status)
        return
    started = dt.datetime.fromtimestamp(status["started"] / 1_000_000, dt.UTC)
    rows = {
        **status,
        "started": f"{started:%Y-%m-%d %H:%M:%S} UTC",
        "state": f"{status['state']} ({settings.origin('state_dir')})",
    }
    for name in ("gateway", "api", "token_file", "state", "version", "pid", "started"):
        output.print_text(f"{name:<10}  {rows[name]}")
    output.print_table(("PROCESS", "PID"), [(p["name"], p["pid"]) for p in status["processes"]])


def status_of(state: Path) -> dict[str, Any]:
    """What up.json says, with the processes; `Unavailable` where nothing is up."""
    up = system.read_up(state)
    # the file outlives a keeper that was killed, the lock does not
    if not system.is_up(state) or not up:
        raise Unavailable(f"nothing runs on {state}", code="not_up")
    return {**up, "processes": _processes(state)}


def _processes(state: Path) -> list[dict[str, Any]]:
    with contextlib.suppress(OSError, ValueError, KeyError):
        children = json.loads((state / "keeper.json").read_text())["children"]
        return [{"name": child["name"], "pid": child["pid"]} for child in children]
    return []

"""keeper.json: which processes are ours, so that whoever comes after a dead keeper can clear them.

A process is told by pid and start time, never by pid alone; after a reboot nothing of an old roster is meant.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from .processes import Process, carries, kill_group, look, processes, start_of

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file so that a reader sees the old or the new, never a part. `OSError` when it cannot be."""
    # one name for all: its writer is alone, and a draft whose writer was killed is the next one's to replace
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        new.rename(path)
    except (OSError, ValueError):
        # a full disk leaves the old file, and no draft that would take more of it
        with contextlib.suppress(OSError):
            new.unlink()
        raise


class Roster:
    """The file, rewritten whenever a child comes or goes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._children: dict[int, dict[str, Any]] = {}

    def add(self, name: str, pid: int, start: int, marker: str, warden: int = 0) -> None:
        """`marker` is the variable that this child and all it starts carry; empty where there is none."""
        watched = {"pid": warden, "start": start_of(warden)}
        self._children[pid] = {
            "name": name,
            "pid": pid,
            "start": start,
            "group": pid,
            "marker": marker,
            "warden": watched,
        }
        self._write()

    def drop(self, pid: int) -> None:
        if self._children.pop(pid, None) is not None:
            self._write()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _write(self) -> None:
        keeper = os.getpid()
        # the parent-death signal holds without this file; a full disk must not end the keeper
        with contextlib.suppress(OSError):
            write_atomically(
                self._path,
                json.dumps(
                    {
                        "boot": _boot(),
                        "keeper": {"pid": keeper, "start": start_of(keeper)},
                        "children": list(self._children.values()),
                    }
                ),
            )


def clear(path: Path, *, keeper: int | None = None, patience: float = 3.0) -> list[str]:
    """End what a dead keeper left behind; returns the names of those that had to be ended.

    With `keeper` given, only a roster that this pid wrote is meant.
    """
    try:
        roster = json.loads(path.read_text())
        # after a reboot every number and start time means somebody else
        if roster["boot"] != _boot() or (keeper is not None and roster["keeper"]["pid"] != keeper):
            return []
        # each is ending its tree, of which it knows more than is written here
        _wait_gone([child["warden"] for child in roster["children"] if "warden" in child], patience)
        left = {child["name"]: _left(child) for child in roster["children"]}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    # by group: between the look and the signal a member may have forked, and its child is in it
    for group in {process.group for found in left.values() for process in found}:
        kill_group(group, signal.SIGKILL)
    _wait_gone([process._asdict() for found in left.values() for process in found], patience)
    return [name for name, found in left.items() if found]


def _left(child: dict[str, Any]) -> list[Process]:
    """The living members of a recorded session, and those who left it but still carry its marker."""
    # the leader's start time decides: while a session has members, its number is not given anew
    leader = look(child["pid"])
    ours = leader is None or leader.start == child["start"]  # else the number has come to mean something else
    marker = child["marker"]
    return [
        p
        for p in processes()
        if p.start >= child["start"] and ((ours and p.session == child["group"]) or (marker and carries(p.pid, marker)))
    ]


def _wait_gone(gone: list[dict[str, Any]], patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(0 < start_of(p["pid"]) == p["start"] for p in gone):
        time.sleep(0.01)


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""

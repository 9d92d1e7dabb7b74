"""Faults of a machine, given by strace to a process that owns durable calls, and what must be there afterwards.

A `Machine` runs `teller.py` over one folder, again and again: killed at a system call of its writer, refused one, or left alone.
`check` holds what the processes said that they were acknowledged against what is written.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import msgspec

from bema.core.limits import DEFAULTS
from bema.core.settings import PartSettings
from bema.jobs.calls import DurableState
from bema.jobs.ledger import SqliteLedger
from tests.jobs import teller

PROGRAM = Path(teller.__file__)
ROOT = PROGRAM.parents[2]
_WRITES = {"pwrite64": 60, "fdatasync": 18}
"""So many and more are in a run that nothing befalls."""


class Run(NamedTuple):
    """How a process ended, and its system calls in order."""

    code: int
    said: list[list[str]]
    trace: list[str]
    left: list[str]  # the files of its state that were there before it


class Machine:
    """One folder, and what was said about it. One call alone writes nothing while another is told."""

    def __init__(self, strace: str, folder: Path, calls: int = 3) -> None:
        self.calls = calls
        self.folder = folder / "calls"
        self.runs: list[Run] = []
        self._strace = strace
        self._trace = folder / "trace"

    def run(self, *faults: str, seconds: float = 60) -> Run:
        """Run the program under faults, such as `pwrite64:error=EIO:when=3`, until it ends or is killed after so long."""
        inject = [option for fault in faults for option in ("-e", f"inject={fault}")]
        traced = ["-f", "-qq", "-y", "-o", str(self._trace), "-e", "trace=pwrite64,fdatasync,fsync,write"]
        program = [sys.executable, str(PROGRAM), str(self.folder), str(self.calls)]
        left = [path.name for path in self.folder.glob("jobs/t.t.sqlite*")]
        process = subprocess.Popen(
            [self._strace, *traced, *inject, *program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        try:
            said, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # what it traces would go on, and wait for room
            said, errors = process.communicate()
        if "ptrace" in errors or "PTRACE" in errors:
            raise PermissionError(errors.strip())
        # what a kill cut off was not said
        lines = [line.split() for line in said.splitlines(keepends=True) if line.endswith("\n")]
        run = Run(process.returncode, lines, self._trace.read_text(errors="replace").splitlines(), left)
        self.runs.append(run)
        return run

    def kept(self) -> set[str]:
        """The calls that are written, ended or not."""
        return asyncio.run(self._kept())

    async def _kept(self) -> set[str]:
        engine = await SqliteLedger.open(PartSettings({}, DEFAULTS, self.folder), "t.t")
        try:
            return {*engine.live(), *(record.id for record in await engine.recent(self.calls))}
        finally:
            await engine.close()

    def check(self) -> list[str]:
        """What is not as it was acknowledged to be, now that every call has ended."""
        return asyncio.run(self._check())

    async def _check(self) -> list[str]:
        engine = await SqliteLedger.open(PartSettings({}, DEFAULTS, self.folder), "t.t")
        try:
            drawn, ends, wrong = dict[str, list[int]](), dict[str, list[int]](), list[str]()
            for id in map(teller.id_of, range(self.calls)):
                entries = (await engine.journal(id)).entries
                if len({entry.place for entry in entries}) < len(entries):
                    wrong.append(f"{id} has two records of one step")
                drawn[id] = [msgspec.msgpack.decode(entry.value) for entry in entries if entry.kind == "step"]
                if (state := (await engine.get(id)).state) is not DurableState.DONE:
                    wrong.append(f"{id} is {state}")
                ends[id] = msgspec.msgpack.decode(await engine.outcome(id))
                if len(drawn[id]) != teller.STEPS or ends[id] != drawn[id]:
                    wrong.append(f"{id} ended with {ends[id]}, and its steps are {drawn[id]}")
            for word, id, *values in (line for run in self.runs for line in run.said):
                if word == "given" and drawn[id][int(values[0])] != int(values[1]):
                    wrong.append(f"step {values[0]} of {id} gave {values[1]}, and is {drawn[id]}")
                if word == "ended" and ends[id] != [int(value) for value in values]:
                    wrong.append(f"{id} ended with {values}, and is {ends[id]}")
            return wrong
        finally:
            await engine.close()


def killed(chance: random.Random) -> str:
    """A kill at some write or sync: its process does not come back from that call."""
    call = chance.choice(list(_WRITES))
    return f"{call}:signal=SIGKILL:when={chance.randint(1, _WRITES[call])}"


def failing(chance: random.Random) -> str:
    """An error at some write or sync, or at every so many."""
    call, error = chance.choice([("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("fdatasync", "EIO")])
    when = chance.randint(1, _WRITES[call])
    return f"{call}:error={error}:when={when}{chance.choice(['', '+1', f'+{when}'])}"


_CALL = re.compile(r"(pwrite64|fdatasync|fsync)\(\d+<[^>]*/(t\.t\.sqlite(?:-wal)?)>.* = (-?\d+)")


def unsynced(trace: list[str], left: Collection[str] = ()) -> list[str]:
    """What was acknowledged while what was written before it, or by the owner before, to files that are `left`, was not synced."""
    dirty, found = {"t.t.sqlite", "t.t.sqlite-wal"}.intersection(left), []
    for line in trace:
        call = _CALL.search(line)
        if call is not None and call[2] and int(call[3]) >= 0:
            (dirty.add if call[1] == "pwrite64" else dirty.discard)(call[2])
        elif dirty and re.search(r'write\(1<[^>]*>, "(acknowledged|given|ended)', line):
            found.append(line)
    return found

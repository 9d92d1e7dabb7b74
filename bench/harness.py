"""What the benches share: placement, CPU time of processes, medians, and thresholds that are met or missed."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_TICK = os.sysconf("SC_CLK_TCK")


def clean_environment() -> dict[str, str]:
    """The environment without what distorts start times."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def pin(pid: int, core: int) -> None:
    """Put every thread of a process and its descendants on one core."""
    for member in family(pid):
        with suppress(OSError):
            for task in Path(f"/proc/{member}/task").iterdir():
                os.sched_setaffinity(int(task.name), {core})


def cpu_seconds(pids: Iterable[int]) -> float:
    """Time on a core of processes and their descendants: to the nanosecond, where the kernel counts it so."""
    return sum(_on_core(member) for pid in pids for member in family(pid))


def _on_core(pid: int) -> float:
    with suppress(OSError):
        return sum(int((task / "schedstat").read_text().split()[0]) for task in _threads(pid)) / 1e9
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK
    return 0.0


def _threads(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


class Wanted(NamedTuple):
    """A ratio of medians, `ours` over `peer` in one row, that has to reach `least`."""

    row: str
    ours: str
    peer: str
    least: float


class Verdict(NamedTuple):
    wanted: Wanted
    reached: float
    by_cpu: float = 0.0  # the same ratio of CPU time per operation, where it was measured: other work sways it less

    @property
    def met(self) -> bool:
        return self.reached >= self.wanted.least

    def __str__(self) -> str:
        row, ours, peer, least = self.wanted
        mark = "met   " if self.met else "MISSED"
        by_cpu = f", {self.by_cpu:.2f} by CPU" if self.by_cpu else ""
        return f"{mark} {row:32s} {ours} / {peer}: {self.reached:.2f}{by_cpu} (at least {least:g})"

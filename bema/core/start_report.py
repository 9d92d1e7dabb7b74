"""StartReport: how an instance was started, and how long that took, as its record has it. Pure.

Law: an instance may write what it likes into its record. Whatever it is, the report is one of `KINDS` and a number.
"""

from __future__ import annotations

from typing import NamedTuple

from bema.core.instance import Instance

__all__ = ["KINDS", "StartReport"]

KINDS = ("exec", "zygote")
"""From its file by an interpreter of its own, or forked by a process that has imported its packages."""


class StartReport(NamedTuple):
    """`milliseconds` is the sum of the phases, and 0 where the record has none."""

    kind: str
    milliseconds: int

    @classmethod
    def of(cls, instance: Instance) -> StartReport:
        """The report of a record; of one that does not say how, that it was started from its file."""
        start, phases = instance.data.get("start"), instance.data.get("phases")
        kind = start.get("kind") if isinstance(start, dict) else None
        times = phases.values() if isinstance(phases, dict) else ()
        return cls(
            kind if isinstance(kind, str) and kind in KINDS else KINDS[0],
            sum(time for time in times if isinstance(time, int) and time > 0),
        )

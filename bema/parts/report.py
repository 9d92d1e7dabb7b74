"""What a discovery found, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bema.parts.entries import PartEntry, PartState
from bema.parts.resolve import Candidate
from bema.parts.scan import Broken

_FAILED = frozenset({PartState.FAILED, PartState.INVALID, PartState.WRONG_TYPE})
_REJECTED = frozenset({PartState.NOT_ALLOWED, PartState.INCOMPATIBLE})


class DiscoveryReport(msgspec.Struct, frozen=True, kw_only=True):
    """One `discover_plugins`. Nothing in it raised: whoever wants that asks for `strict=True`."""

    group: str
    candidates: tuple[Candidate, ...] = ()
    new: tuple[PartEntry, ...] = ()
    gone: tuple[PartEntry, ...] = ()
    conflicts: Mapping[str, tuple[PartEntry, ...]] = {}
    pending: Mapping[str, str] = {}  # name -> what was selected for it and is not there
    broken: tuple[Broken, ...] = ()  # entry_points.txt files, of anybody, that cannot be read whole
    leftovers: tuple[str, ...] = ()
    milliseconds: float = 0.0

    def of(self, *states: PartState) -> tuple[Candidate, ...]:
        return tuple(c for c in self.candidates if c.state in states)

    @property
    def found(self) -> int:
        return len(self.candidates)

    @property
    def rejected(self) -> tuple[Candidate, ...]:
        return self.of(*_REJECTED)

    @property
    def failed(self) -> tuple[Candidate, ...]:
        return self.of(*_FAILED)

    @property
    def shadowed(self) -> tuple[Candidate, ...]:
        return self.of(PartState.SHADOWED)

    def problems(self) -> list[str]:
        """A sentence for everything that an operator who wants no surprises would stop at."""
        sentences = [f"{c.entry.label}: {c.why}" for c in (*self.rejected, *self.failed)]
        sentences += [f"{b.dist or b.path}: {b.problem}" for b in self.broken]
        for name, rivals in self.conflicts.items():
            sentences.append(f"{name!r} is claimed by {', '.join(e.label for e in rivals)}")
        return sentences + [
            f"{name!r}: {selector!r} is selected and not there" for name, selector in self.pending.items()
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "found": self.found,
            "new": [e.id for e in self.new],
            "gone": [e.id for e in self.gone],
            "rejected": [c.entry.id for c in self.rejected],
            "failed": [c.entry.id for c in self.failed],
            "shadowed": [c.entry.path for c in self.shadowed],
            "conflicts": {name: [e.id for e in rivals] for name, rivals in self.conflicts.items()},
            "pending": dict(self.pending),
            "broken": [b._asdict() for b in self.broken],
            "leftovers": list(self.leftovers),
            "milliseconds": round(self.milliseconds, 3),
        }

"""Journal: what of a durable call is not done again, in the order in which it was completed.

Law: an entry is written once, and its order is that of the completions, which a replay gives out one after the other. So a
handler that is run again with the same journal comes to the same place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from bema.core.errors import Invalid
from bema.wire.values import codecs


# it refers to nothing that could refer to it: the collector of cycles need not look
class JournalEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One completion. `place` is where in the handler's code: the path of its task, then the number within that task.

    `value` is an encoded result, `failure` an encoded error; `digest` is of the arguments, empty where they have no bytes.
    """

    order: int
    place: str
    kind: str  # step, sleep, ask, signal
    name: str = ""
    digest: str = ""
    value: bytes = b""
    failure: bytes = b""
    at: int = 0
    tries: int = 1

    @property
    def shown(self) -> str:
        """For people: `step 3 charge`."""
        return f"{self.kind} {self.place} {self.name}".rstrip()


class Journal:
    """The entries of one call, by place and by order."""

    def __init__(self, entries: Iterable[JournalEntry] = ()) -> None:
        self.entries = sorted(entries, key=lambda entry: entry.order)
        self._by_place = {entry.place: entry for entry in self.entries}

    def __len__(self) -> int:
        return len(self.entries)

    def at(self, place: str) -> JournalEntry | None:
        return self._by_place.get(place)

    def add(self, entry: JournalEntry) -> None:
        self.entries.append(entry)
        self._by_place[entry.place] = entry

    @property
    def next_order(self) -> int:
        return self.entries[-1].order + 1 if self.entries else 1


def digest_of(arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
    """What tells one step's arguments from another's; empty for arguments that have no bytes, such as a connection."""
    try:
        # not held against what arrives: it must only be the same in a replay
        packed = codecs.pack((arguments, named))
    except (Invalid, *codecs.UNFIT):
        return ""
    return hashlib.sha256(packed).hexdigest()[:16]

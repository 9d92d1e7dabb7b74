"""Continuation: how far a resumable stream has come, and whether it may go on with another instance.

Laws: an item counts as delivered when its reader is given it, so a continued stream has neither a gap nor a double. A stream
that gives nothing between two ends is tried as often as any call, and costs the retry budget; one that moves does not: what a
failing service must be spared is repeats without end, and each item brings this one nearer to its own.
"""

from __future__ import annotations

from typing import Any

from bema.wire.rpc import cursors

PAYS = 10  # items after which a continuation costs no budget


class Continuation:
    """Of one stream, from its first opening to its end."""

    __slots__ = ("cursor", "delivered", "opened_at")

    def __init__(self) -> None:
        self.cursor: Any = None
        self.delivered = 0
        self.opened_at = 0  # how many were delivered when it was last opened

    def metadata(self, own: dict[str, str] | None) -> dict[str, str]:
        """The call's metadata, with the place to continue from."""
        self.opened_at = self.delivered
        return {**(own or {}), cursors.HEADER: cursors.header_of(self.cursor)}

    def take(self, packed: Any) -> bytes:
        """The payload of an item that is about to be delivered; `msgspec.DecodeError` for what is none."""
        cursor, payload = cursors.read_item(packed)
        self.delivered += 1
        self.cursor = self.delivered if cursor is None else cursor
        return payload

    def moved(self) -> bool:
        """Whether it gave anything since it was last opened."""
        return self.delivered > self.opened_at

    def pays(self) -> bool:
        """Whether it gave so much that going on costs no budget."""
        return self.delivered - self.opened_at >= PAYS

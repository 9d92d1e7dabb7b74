"""The way to a client: bytes out, and reading held while what was read has nowhere to go.

Law: whoever holds the client back says why; it is read on when no reason is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["FULL_HELD", "FULL_PENDING", "FULL_UPSTREAM", "ClientTransport"]

FULL_UPSTREAM, FULL_PENDING, FULL_HELD = 1, 2, 4
"""Why a client is not read: the instance takes no more, no instance is there yet, requests wait for their turn."""


class ClientTransport:
    """What an exchange has of its client. `done(keep)` and `cut()` tell the connection how the exchange ended.

    `full` says that the client does not read what was written, `held_for` why it is not read; `peer` is its address.
    """

    __slots__ = ("cut", "done", "full", "held_for", "peer", "transport")

    transport: asyncio.Transport

    def __init__(self, done: Callable[[bool], None], cut: Callable[[], None]) -> None:
        self.done = done
        self.cut = cut
        self.full = False
        self.peer = b""
        self.held_for = 0

    def opened(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self.peer = peer[0].encode() if isinstance(peer, tuple) else b"127.0.0.1"

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def hold(self, reason: int, held: bool) -> None:
        """Stop or go on reading from the client; it goes on when no reason is left."""
        before = self.held_for
        self.held_for = before | reason if held else before & ~reason
        if bool(before) != bool(self.held_for) and not self.transport.is_closing():
            (self.transport.pause_reading if self.held_for else self.transport.resume_reading)()

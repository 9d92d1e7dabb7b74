"""ClientTransport: writing to a client, and pausing its reading while what was read has nowhere to go.

Law: each pause has a reason, and reading resumes when no reason is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["FULL_HELD", "FULL_PENDING", "FULL_UPSTREAM", "ClientTransport", "end_writing"]

FULL_UPSTREAM, FULL_PENDING, FULL_HELD = 1, 2, 4
"""Why a client is not read: the instance takes no more, no instance is there yet, pipelined requests wait for their turn."""


class ClientTransport:
    """The client as an exchange sees it. `done(keep)` and `cut()` tell the connection how the exchange ended, `switched()` that
    it carries another protocol from now on.

    `full` says that the client does not read what was written, `held_for` holds the reasons why we do not read it, `peer`
    is its IP address.
    """

    __slots__ = ("cut", "done", "full", "held_for", "peer", "switched", "transport")

    transport: asyncio.Transport

    def __init__(
        self, done: Callable[[bool], None], cut: Callable[[], None], switched: Callable[[], None] = lambda: None
    ) -> None:
        self.done = done
        self.cut = cut
        self.switched = switched
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
        """Add or remove a reason not to read from the client; reading goes on when none is left."""
        # Bits and not a count: a reason is added twice and removed once when events cross.
        before = self.held_for
        self.held_for = before | reason if held else before & ~reason
        if bool(before) != bool(self.held_for) and not self.transport.is_closing():
            (self.transport.pause_reading if self.held_for else self.transport.resume_reading)()


def end_writing(transport: asyncio.Transport) -> bool:
    """End our side once what was written is sent; False where there is no side of our own, and the whole connection ends."""
    if transport.is_closing() or not transport.can_write_eof():
        transport.close()
        return False
    try:
        transport.write_eof()
    except OSError:
        # the client's reset came in between, and the event loop has not said so yet
        transport.abort()
        return False
    return True

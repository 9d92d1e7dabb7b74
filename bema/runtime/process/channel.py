"""The inside end of the module channel: Init and Stop come in, Announce and Status go out.

A launched process inherits a socket; lines of JSON go both ways over it. Law: the end of the channel is a Stop. What a
module asks for besides goes over a socket of its own, never over this one.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from bema.core.errors import ProtocolError
from bema.core.limits import DEFAULTS, Limits
from bema.runtime.process.line_channel import LineChannel
from bema.wire.module.envelopes import encode, read_to_module
from bema.wire.module.handshake import Announce, Handshake, HandshakeSide, Init, Stop, read_init
from bema.wire.module.lines import BadLine
from bema.wire.module.messages import Heartbeat, HeartbeatAck, Status


class Channel(LineChannel):
    """Reads what the launcher says and hands it to whoever asked for it; writes what the process says."""

    def __init__(self, init: Init | None = None, limits: Limits = DEFAULTS) -> None:
        super().__init__(read_init, limits)
        self._limits = limits
        self.handshake = Handshake(HandshakeSide.INSIDE)
        self.phases: dict[str, int] = {}  # milliseconds of what was done before this channel was opened
        self.stop: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self._init: asyncio.Future[Init] = asyncio.get_running_loop().create_future()
        self.on(Heartbeat, lambda beat: self.send(HeartbeatAck()))
        self.on(Stop, self._stopped)
        if init is not None:
            self._first(init)

    @classmethod
    async def open(cls, descriptor: int, init: Init | None = None, limits: Limits = DEFAULTS) -> Channel:
        """Speak over an inherited socket; children of this process do not get it."""
        return await cls(init, limits).speak(descriptor)

    async def init(self) -> Init:
        """The first line; `ProtocolError` when something else comes, or nothing within the limit."""
        patience = self._limits.handshake
        try:
            async with asyncio.timeout(patience):
                # shielded: cancelled by the timeout, it could not be set by what comes late
                return await asyncio.shield(self._init)
        except TimeoutError as error:
            raise ProtocolError(f"no Init came within {patience:g} s") from error

    def announce(self, announce: Announce) -> None:
        """Say that this process listens. Once, after binding."""
        self.write(self.handshake.say(announce))

    def tell(self, status: Status) -> None:
        """Say how this process serves now, from any thread; what was told before and still waits is not said."""
        line = encode(status)
        if self._outlet is not None:
            self._outlet.tell(line)

    def heard(self, message: Any) -> None:
        # the first line is read as Init: who begins otherwise is no launcher
        if self._init.done():
            super().heard(message)
        else:
            self._first(message)

    def unread(self, bad: BadLine) -> None:
        if self._init.done():
            super().unread(bad)
        else:
            self._fail(ProtocolError(bad.reason))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self._init.done():
            self._fail(ProtocolError("the launcher hung up before it said Init"))
        # a process without its launcher would be nobody's, and serve old code for ever
        self._stopped(Stop(reason="the launcher is gone"))

    def _first(self, init: Init) -> None:
        self.handshake.hear(init)
        # a second Init is a word out of place from here on
        self._lines.reading_with(read_to_module)
        self._init.set_result(init)

    def _fail(self, error: ProtocolError) -> None:
        self._init.set_exception(error)
        self._init.exception()  # looked at: nobody may be waiting

    def _stopped(self, stop: Stop) -> None:
        if not self.stop.done():
            with contextlib.suppress(ProtocolError):  # it may come before Init, or when all is over
                self.handshake.hear(stop)
            self.stop.set_result(stop)

"""The inside end of the module channel: one reader, one writer, one dispatcher per process.

A launched process inherits a socket whose number is in `BEMA_CHANNEL`; lines of JSON go both ways over it. Law: the end
of the channel is a Stop. A line that cannot be read is logged, and the next one is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec

from bema.core.errors import ProtocolError, Refused
from bema.core.limits import DEFAULTS, Limits
from bema.runtime import forks
from bema.runtime.process.channel_writer import ChannelWriter
from bema.wire.module.envelopes import encode, read_to_module
from bema.wire.module.handshake import Announce, Handshake, HandshakeSide, Init, Stop, init_of, read_init
from bema.wire.module.lines import BadLine, LineReader
from bema.wire.module.messages import Heartbeat, HeartbeatAck, Status

VARIABLE = "BEMA_CHANNEL"

M = TypeVar("M", bound=msgspec.Struct)

_log = logging.getLogger("bema.channel")


class _Inherited:
    """The channel this process was given, until somebody takes it."""

    descriptor: int | None = None
    init: Init | None = None
    phases: dict[str, int] | None = None


def adopt(descriptor: int, init: dict[str, Any] | None = None, phases: dict[str, int] | None = None) -> None:
    """Give the process its channel. Whoever has read the first line already (the runner) passes it as `init`, and the
    milliseconds of what it did as `phases`."""
    _Inherited.descriptor = descriptor
    _Inherited.init = None if init is None else init_of(init)
    _Inherited.phases = phases


async def inherited(limits: Limits = DEFAULTS) -> Channel | None:
    """The channel of this process, once; None for a process that was started by hand."""
    number = os.environ.pop(VARIABLE, None)
    if _Inherited.descriptor is None and number is not None:
        if not number.isdecimal():
            raise Refused(f"{VARIABLE} is {number!r}, which is not the number of a descriptor", code="bad_setting")
        adopt(int(number))
    descriptor, init, phases = _Inherited.descriptor, _Inherited.init, _Inherited.phases
    _Inherited.descriptor = _Inherited.init = _Inherited.phases = None
    if descriptor is None:
        return None
    channel = await Channel.open(descriptor, init, limits)
    channel.phases = phases or {}
    return channel


class Channel(asyncio.Protocol):
    """Reads what the launcher says and hands it to whoever asked for it; writes what the process says."""

    def __init__(self, init: Init | None = None, limits: Limits = DEFAULTS) -> None:
        self._limits = limits
        self.handshake = Handshake(HandshakeSide.INSIDE)
        self.phases: dict[str, int] = {}  # milliseconds of what was done before this channel was opened
        self.stop: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self._init: asyncio.Future[Init] = asyncio.get_running_loop().create_future()
        self._lines = LineReader(read_init, limits.channel_line)
        self._heard: dict[type[Any], Callable[[Any], None]] = {Heartbeat: lambda beat: self.send(HeartbeatAck())}
        self._transport: asyncio.Transport | None = None
        self._outlet: ChannelWriter | None = None
        self._descriptor = -1
        if init is not None:
            self._first(init)

    @classmethod
    async def open(cls, descriptor: int, init: Init | None = None, limits: Limits = DEFAULTS) -> Channel:
        """Speak over an inherited socket; children of this process do not get it."""
        os.set_inheritable(descriptor, False)
        forks.close_in_children(descriptor)
        try:
            inherited = socket.socket(fileno=descriptor)
        except OSError as error:
            raise Refused(f"descriptor {descriptor} is not a socket: {error.strerror}", code="bad_setting") from error
        inherited.setblocking(False)
        _, channel = await asyncio.get_running_loop().create_connection(lambda: cls(init, limits), sock=inherited)
        return channel

    async def init(self) -> Init:
        """The first line; `ProtocolError` when something else comes, or nothing within the limit."""
        patience = self._limits.handshake
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(self._init)
        except TimeoutError as error:
            raise ProtocolError(f"no Init came within {patience:g} s") from error

    def announce(self, announce: Announce) -> None:
        """Say that this process listens. Once, after binding."""
        self._write(self.handshake.say(announce))

    def send(self, message: msgspec.Struct) -> None:
        """Say anything else."""
        self._write(encode(message))

    def tell(self, status: Status) -> None:
        """Say how this process serves now, from any thread; what was told before and still waits is not said."""
        line = encode(status)
        if self._outlet is not None:
            self._outlet.tell(line)

    def on(self, kind: type[M], heard: Callable[[M], None]) -> None:
        """Call `heard` with every message of this kind; one listener per kind."""
        self._heard[kind] = heard

    def close(self) -> None:
        if self._transport is not None:
            self._forget()
            self._end_outlet()
            self._transport.close()

    def _end_outlet(self) -> None:
        if self._outlet is not None:
            self._outlet.end()

    def _forget(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        forks.forget(descriptor)

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no asyncio.Transport
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._outlet = ChannelWriter(self._descriptor)

    def data_received(self, data: bytes) -> None:
        for message in self._lines.feed(data):
            if not self._init.done():
                self._open_with(message)
            else:
                self._hear(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self._end_outlet()
        if not self._init.done():
            self._fail(ProtocolError("the launcher hung up before it said Init"))
        self._stopped(Stop(reason="the launcher is gone"))

    def _open_with(self, message: Any) -> None:
        if isinstance(message, BadLine):
            self._fail(ProtocolError(message.reason))
        else:
            self._first(message)

    def _first(self, init: Init) -> None:
        self.handshake.hear(init)
        self._lines.reading_with(read_to_module)
        self._init.set_result(init)

    def _fail(self, error: ProtocolError) -> None:
        self._init.set_exception(error)
        self._init.exception()  # looked at: nobody may be waiting

    def _hear(self, message: Any) -> None:
        if isinstance(message, BadLine):
            _log.warning("a line of the module channel is skipped: %s: %s", message.reason, message.excerpt)
        elif isinstance(message, Stop):
            self._stopped(message)
        elif (heard := self._heard.get(type(message))) is not None:
            heard(message)
        else:
            _log.info("nothing here asked for %s", type(message).__name__)

    def _stopped(self, stop: Stop) -> None:
        if not self.stop.done():
            with contextlib.suppress(ProtocolError):  # it may come before Init, or when all is over
                self.handshake.hear(stop)
            self.stop.set_result(stop)

    def _write(self, line: bytes) -> None:
        if self._outlet is not None:
            self._outlet.write(line)

"""Messages over a socket that was passed to this process: one reader, one writer, one dispatcher.

Both ends of a module's operations are one of these, and so is the inside end of its channel. Law: a line that cannot be
read is told to `unread`, and the next one is read; whole lines are written, from any thread; children of this process do
not get the descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, Self, TypeVar, cast

import msgspec

from bema.core.errors import Refused
from bema.core.limits import DEFAULTS, Limits
from bema.runtime import forks
from bema.runtime.process.channel_writer import ChannelWriter
from bema.wire.module.envelopes import encode
from bema.wire.module.lines import BadLine, LineReader

M = TypeVar("M", bound=msgspec.Struct)

_log = logging.getLogger("bema.channel")


class LineChannel(asyncio.Protocol):
    """One end; `read` makes a message of a line."""

    def __init__(self, read: Callable[[bytes], Any], limits: Limits = DEFAULTS) -> None:
        self._lines = LineReader(read, limits.channel_line)
        self._heard: dict[type[Any], Callable[[Any], None]] = {}
        self._transport: asyncio.Transport | None = None
        self._outlet: ChannelWriter | None = None
        self._descriptor = -1

    async def speak(self, descriptor: int) -> Self:
        """Speak over a descriptor, which is this channel's from now on. `Refused` when it is no socket."""
        # it came through exec, so it is inheritable, and a child that held it would hide our end
        os.set_inheritable(descriptor, False)
        forks.close_in_children(descriptor)
        try:
            end = socket.socket(fileno=descriptor)
        except OSError as error:
            raise Refused(f"descriptor {descriptor} is not a socket: {error.strerror}", code="bad_setting") from error
        end.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=end)
        return self

    def send(self, message: msgspec.Struct) -> None:
        """Say it; nobody waits for the reader."""
        self.write(encode(message))

    def write(self, line: bytes) -> None:
        """Send one line; nothing where the channel is not open."""
        if self._outlet is not None:
            self._outlet.write(line)

    def on(self, kind: type[M], heard: Callable[[M], None]) -> None:
        """Call `heard` with every message of this kind; one listener per kind."""
        self._heard[kind] = heard

    def heard(self, message: Any) -> None:
        """Hand a message to who asked for its kind."""
        if (listener := self._heard.get(type(message))) is not None:
            listener(message)
        else:
            _log.info("nothing here asked for %s", type(message).__name__)

    def unread(self, bad: BadLine) -> None:
        """A line that is no message has come: it is logged and skipped."""
        _log.warning("a line of the module channel is skipped: %s: %s", bad.reason, bad.excerpt)

    def close(self) -> None:
        """Say what is unsaid, and let go."""
        if self._transport is not None:
            self._let_go()
            self._transport.close()

    def cut(self) -> None:
        """End the conversation for both sides at once, whoever else holds a copy of the descriptor."""
        if self._transport is not None:
            with contextlib.suppress(OSError):
                # close would leave it open as long as anybody has a copy; the keeper has one
                self._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            self.close()

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        forks.forget(descriptor)
        if self._outlet is not None:
            self._outlet.end()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no asyncio.Transport
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._outlet = ChannelWriter(self._descriptor)

    def data_received(self, data: bytes) -> None:
        for message in self._lines.feed(data):
            if isinstance(message, BadLine):
                self.unread(message)
            else:
                self.heard(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()

"""The host of a deployed script: serves what the script holds on the socket it was given, until it is told to stop.

Called by the runner, which knows it by name only. Law: it is bound before it announces; Stop, SIGTERM and the end of the
channel all mean: take nothing new, finish within the deadline, exit 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec

from bema.core.errors import BadDeclaration, BemaError, ProtocolError
from bema.core.limits import limit
from bema.sdk import servers
from bema.sdk.servers import asgi
from bema.wire.handshake import Announce, Handshake, Init, Side, Stop, init_of
from bema.wire.lines import LineReader

_FAILED = 1
_READ = 64 * 1024


def run(init: dict[str, Any], channel: int, module: ModuleType, entry: dict[str, str]) -> None:
    """Serve `entry` of `module` until Stop. A refusal is one sentence on stderr and exit code 1."""
    phases = init.pop("phases", {})
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        told = init_of(init)
        target = _find(module, entry["name"])
        began = time.monotonic()
        adapted = servers.adapt(target, entry["name"])
        phases["adapt"] = _since(began)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve_app(adapted, told, channel, phases))
    except BemaError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n  fix: {error.fix}\n")
        raise SystemExit(_FAILED) from error


def _find(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise BadDeclaration(f"the script has no {name!r}", code="entry_not_found") from error
    return found


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, where the platform layer or the script's environment has it."""
    with contextlib.suppress(ImportError):
        return importlib.import_module("uvloop").new_event_loop  # type: ignore[no-any-return]
    return None


async def _serve_app(adapted: servers.Adapted, init: Init, channel: int, phases: dict[str, int]) -> None:
    if init.listen_fd is None:
        raise ProtocolError("Init passes no listening socket")
    listener = socket.socket(fileno=init.listen_fd)
    ends = Ends(init, channel)
    began = time.monotonic()

    def ready() -> None:
        phases["startup"] = _since(began)
        ends.announce(adapted, phases)

    await asgi.serve(adapted, listener, ready, ends.stopped)


class Ends:
    """The inner end of the handshake for an app: it announces, and it hears how long there is to finish."""

    def __init__(self, init: Init, channel: int) -> None:
        self._init = init
        self._handshake = Handshake(Side.INSIDE)
        self._handshake.hear(init)
        self._socket = socket.socket(fileno=channel)
        self._socket.setblocking(False)
        self._lines = LineReader(_read_stop)
        self._loop = asyncio.get_running_loop()
        self._drain = limit("drain") if init.drain_ms is None else init.drain_ms / 1000
        self.stopped: asyncio.Future[float] = self._loop.create_future()
        self._loop.add_reader(self._socket, self._readable)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop, self._drain)

    def announce(self, adapted: servers.Adapted, phases: dict[str, int]) -> None:
        line = self._handshake.say(
            Announce(
                listen=self._init.listen,
                endpoints=adapted.endpoints,
                instance=self._init.instance,
                kind=adapted.kind,
                phases=phases,
            )
        )
        with contextlib.suppress(OSError):  # the launcher has gone: the channel's end says so too
            self._socket.setblocking(True)
            self._socket.sendall(line)
            self._socket.setblocking(False)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._socket)
            self._stop(self._drain)
        for word in self._lines.feed(data):
            if isinstance(word, Stop):
                self._stop(self._drain if word.deadline_ms is None else word.deadline_ms / 1000)

    def _stop(self, seconds: float) -> None:
        if not self.stopped.done():
            self.stopped.set_result(seconds)


def _read_stop(line: bytes) -> Stop | None:
    """Stop is the only word an app obeys; every other is for processes that know more of the channel."""
    try:
        return _stop.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


_stop = msgspec.json.Decoder(Stop)


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)

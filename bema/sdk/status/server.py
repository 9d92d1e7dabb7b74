"""StatusServer: the status of a process over HTTP, where `BEMA_STATUS_PORT` asks for it.

Laws: the server runs from the first step of the boot to the last hook, so that a caller who waits sees why. A thread of its
own answers, so that a blocked event loop can be told from a dead process. There is one per event loop, shared by its
services and by runtimes that serve without a class.
"""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import os
import socket
import weakref
from operator import attrgetter
from typing import Any

from bema.core.errors import Refused
from bema.core.limits import DEFAULTS, LIMITS, Limits
from bema.core.settings import SETTINGS
from bema.core.spec import ServiceSpec
from bema.runtime.process.host import Host
from bema.runtime.rpc import sockets
from bema.runtime.rpc.metrics import CallMetrics
from bema.sdk.status.components import ComponentView, components
from bema.sdk.status.engine_routes import EngineRequest, routes_of
from bema.sdk.status.exposition import exposition
from bema.sdk.status.loop_delay import LoopDelay
from bema.sdk.status.pages import StatusPages
from bema.sdk.status.server_thread import ServerThread

PORT, HOST = SETTINGS["status_port"], SETTINGS["status_host"]
INHERITED = "BEMA_STATUS_FD"  # the number of a socket that listens there already, where processes follow each other

_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, StatusServer] = weakref.WeakKeyDictionary()


def _of(loop: asyncio.AbstractEventLoop) -> StatusServer:
    if loop not in _by_loop:
        _by_loop[loop] = StatusServer(_listening(), loop)
    return _by_loop[loop]


def _listening() -> socket.socket:
    if importlib.util.find_spec("uvicorn") is None:
        raise Refused(
            f"{PORT.variable} needs uvicorn", code="missing_extra", fix="Install it: pip install 'bema[http]'"
        )
    inherited = os.environ.pop(INHERITED, "")
    if not inherited:
        return bound()
    os.set_inheritable(int(inherited), False)
    return socket.socket(fileno=int(inherited))


def bound() -> socket.socket:
    """A bound socket at `BEMA_STATUS_HOST` and `BEMA_STATUS_PORT`.

    Raises:
        Refused: one of them is no address or port (code `bad_setting`), or the port is taken.
    """
    port, host = os.environ.get(PORT.variable, ""), os.environ.get(HOST.variable) or str(HOST.default)
    if not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise Refused(f"{PORT.variable} is {port!r}, which is not the number of a port", code="bad_setting")
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise Refused(
            f"{HOST.variable} is {host!r}, which is not an address",
            code="bad_setting",
            fix="Give an IP address of this machine, or 0.0.0.0 for all of them.",
        ) from error
    return sockets.bind(f"tcp:[{address}]:{port}" if address.version == 6 else f"tcp:{address}:{port}")


class StatusServer:
    """Serves the pages from when it is made until its last service and runtime have left."""

    def __init__(self, listener: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.services = 0
        self.host, self.port = listener.getsockname()[:2]
        self._loop = loop
        # replaced and never changed: another thread goes through them
        self._members: tuple[ComponentView, ...] = ()
        self._runtimes: tuple[tuple[Host, CallMetrics], ...] = ()
        self._delay = LoopDelay(loop)
        self._asking = EngineRequest(loop, self._delay)
        pages = StatusPages(self.told, self.metrics, routes_of(loop), self._asking, self.limits)
        self._thread = ServerThread(pages, listener, loop, lambda: _by_loop.pop(loop, None))

    @classmethod
    def opened(cls) -> StatusServer:
        """The server of the running loop, for one more service."""
        status = _of(asyncio.get_running_loop())
        status.services += 1
        return status

    @classmethod
    def joined(cls, host: Host, loop: asyncio.AbstractEventLoop) -> StatusServer:
        """The server of `loop`, which shows from now on what a runtime serves, until `parted`."""
        status = _of(loop)
        status.join(host)
        return status

    @property
    def url(self) -> str:
        """The URL at which this machine reaches the server."""
        address = ipaddress.ip_address(self.host)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if address.version == 6 else f"http://{host}:{self.port}"

    def watch(self, spec: ServiceSpec, host: Host) -> None:
        """Show a service from now on. Calls that it answered before are not counted."""
        metrics = self._counted(host)
        self._members += (ComponentView(host, host.component(spec.namespace, spec.name), metrics),)

    def join(self, host: Host) -> None:
        self._runtimes += ((host, self._counted(host)),)

    def _counted(self, host: Host) -> CallMetrics:
        counted = {id(host): metrics for host, metrics in self._runtimes}
        counted |= {id(member.host): member.metrics for member in self._members}
        metrics = counted.get(id(host)) or CallMetrics()
        host.accepts = metrics.connection
        return metrics

    async def left(self) -> None:
        """One of the services has ended; the last to leave ends the status."""
        self.services -= 1
        await self._unless_needed()

    async def parted(self, host: Host) -> None:
        """A runtime that had joined has ended."""
        self._runtimes = tuple(each for each in self._runtimes if each[0] is not host)
        await self._unless_needed()

    async def _unless_needed(self) -> None:
        if self.services or self._runtimes:
            return
        _by_loop.pop(self._loop, None)
        await self._asking.close()
        await self._thread.close()
        self._delay.close()

    # called from the thread that answers

    def told(self) -> dict[str, Any]:
        """The JSON of both health pages; each takes its HTTP status from its own field."""
        members, stalled = self._seen(), self._stalled()
        return {
            "alive": all(member.alive for member in members),
            "ready": not stalled and self._ready(members),
            "stalled": stalled,
            "loop_lag": self._delay.lag,
            "services": {member.address: member.described() for member in members},
        }

    def metrics(self) -> str:
        members, stalled = self._seen(), self._stalled()
        ready = not stalled and self._ready(members)
        return exposition(members, ready=ready, stalled=stalled, lag=self._delay.lag)

    def limits(self) -> Limits:
        """The limits of the pages: of each limit the least that holds for a runtime that is served here."""
        hosts = [member.host for member in self._members] + [host for host, _ in self._runtimes]
        held = [host.limits for host in hosts] or [DEFAULTS]
        return held[0] if len(held) == 1 else Limits(**{name: min(map(attrgetter(name), held)) for name in LIMITS})

    def _seen(self) -> tuple[ComponentView, ...]:
        known = {id(member.hosted) for member in self._members}
        others = (
            ComponentView(host, hosted, metrics)
            for host, metrics in self._runtimes
            for hosted in components(host)
            if hosted.endpoints and id(hosted) not in known
        )
        return (*self._members, *others)

    def _ready(self, members: tuple[ComponentView, ...]) -> bool:
        here = len(self._members) == self.services and bool(members)
        return here and all(member.ready for member in members)

    def _stalled(self) -> bool:
        """Whether the loop has been blocked for longer than the limit `stalled`, which marks its instances."""
        return self._delay.stalled_for > self.limits().stalled

"""The status of a process over HTTP, where `BEMA_STATUS_PORT` asks for it.

Law: it is there from the first step to the last hook, so that who waits sees why, and answers from a thread of its own, so
that a loop that stands can be told from a process that is dead. One per event loop, shared by its services.
"""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import os
import socket
import weakref
from typing import Any

from bema.core.errors import Refused
from bema.core.limits import limit
from bema.core.settings import SETTINGS
from bema.core.spec import ServiceSpec
from bema.runtime import sockets
from bema.runtime.hosting import Hosting
from bema.runtime.metering import Meter
from bema.sdk.aside import Aside
from bema.sdk.beat import Beat
from bema.sdk.exposition import exposition
from bema.sdk.members import Member
from bema.sdk.pages import Pages

PORT, HOST = SETTINGS["status_port"], SETTINGS["status_host"]
INHERITED = "BEMA_STATUS_FD"  # the number of a socket that listens there already, where processes follow each other

_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Status] = weakref.WeakKeyDictionary()


def opened() -> Status:
    """The status of this loop's services, one more of which begins."""
    loop = asyncio.get_running_loop()
    if loop not in _by_loop:
        _by_loop[loop] = Status(_listening(), loop)
    status = _by_loop[loop]
    status.services += 1
    return status


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
    """A socket that listens where `BEMA_STATUS_HOST` and `BEMA_STATUS_PORT` say, or `Refused`."""
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


class Status:
    """Serves from its making until the last of its services has left."""

    def __init__(self, listener: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.services = 0
        self.port = int(listener.getsockname()[1])
        self._loop = loop
        self._members: tuple[Member, ...] = ()  # replaced and never changed: another thread goes through it
        self._beat = Beat(loop)
        self._aside = Aside(Pages(self.told, self.metrics), listener, loop, lambda: _by_loop.pop(loop, None))

    def watch(self, spec: ServiceSpec, hosting: Hosting) -> None:
        """Tell of a service from now on. What it has served before is not counted."""
        known = next((member.meter for member in self._members if member.hosting is hosting), None)
        meter = known or Meter()
        hosting.accepts = meter.connection
        self._members += (Member(hosting, hosting.component(spec.namespace, spec.name), meter),)

    async def left(self) -> None:
        """One of the services has ended; the last one ends the status."""
        self.services -= 1
        if self.services:
            return
        _by_loop.pop(self._loop, None)
        self._beat.close()
        await self._aside.close()

    # asked from the thread that answers

    def told(self) -> dict[str, Any]:
        """What both health pages say; their status is of their own field."""
        members = self._members
        stalled = self._stalled(members)
        return {
            "alive": all(member.alive for member in members),
            "ready": not stalled and self._ready(members),
            "stalled": stalled,
            "loop_lag": self._beat.lag,
            "services": {member.address: member.described() for member in members},
        }

    def metrics(self) -> str:
        members = self._members
        stalled = self._stalled(members)
        ready = not stalled and self._ready(members)
        return exposition(members, ready=ready, stalled=stalled, lag=self._beat.lag)

    def _ready(self, members: tuple[Member, ...]) -> bool:
        return len(members) == self.services and all(member.ready for member in members)

    def _stalled(self, members: tuple[Member, ...]) -> bool:
        """Whether the loop has stood still for as long as marks its instances."""
        bounds = [member.hosting.limit("stalled") for member in members]
        return self._beat.standing > min(bounds, default=limit("stalled"))

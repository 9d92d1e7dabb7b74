"""Status: what a process tells over HTTP and to its launcher about how it serves.

The HTTP pages are a part, imported only where `BEMA_STATUS_PORT` asks for them, so that other starts do not pay for them.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from bema.core.spec import ServiceSpec
from bema.core.version import VERSION
from bema.parts import Factory
from bema.runtime.process.host import Host


class StatusView(Protocol):
    """The status pages of one event loop, shared by its services and by runtimes that serve without a class."""

    @property
    def url(self) -> str:
        """The URL at which this machine reaches the pages."""
        ...

    @classmethod
    def opened(cls) -> StatusView:
        """The pages of the running loop, for one more service, which calls `left` at its end."""
        ...

    @classmethod
    def joined(cls, host: Host, loop: asyncio.AbstractEventLoop) -> StatusView:
        """The pages of `loop`, which show from now on what a runtime serves, until it calls `parted`."""
        ...

    def watch(self, spec: ServiceSpec, host: Host) -> None:
        """Show a service from now on."""
        ...

    async def left(self) -> None:
        """One service has ended; the pages end with the last of them."""
        ...

    async def parted(self, host: Host) -> None:
        """A runtime that had joined has ended."""
        ...


class StatusFactory(Factory[StatusView], group="bema.status", api=VERSION, default="http"):
    """Status pages by the protocol that serves them."""


StatusFactory.register_lazy("http", "bema.sdk.status.server:StatusServer")

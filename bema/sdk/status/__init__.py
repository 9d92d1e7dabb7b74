"""What a process says of itself over HTTP and to its launcher.

Who serves the pages is a part: it is imported when `BEMA_STATUS_PORT` asks for it, and a start without it does not pay
for it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from bema.core.spec import ServiceSpec
from bema.core.version import VERSION
from bema.parts import Factory
from bema.runtime.process.host import Host


class StatusView(Protocol):
    """The pages of one event loop, shared by its services and by runtimes that serve without a class."""

    @property
    def url(self) -> str:
        """Where this machine reaches them."""
        ...

    @classmethod
    def opened(cls) -> StatusView:
        """The pages of the running loop, for one more service, which tells when it has `left`."""
        ...

    @classmethod
    def joined(cls, host: Host, loop: asyncio.AbstractEventLoop) -> StatusView:
        """The pages of `loop`, which tell from now on of whatever this runtime serves, until it has `parted`."""
        ...

    def watch(self, spec: ServiceSpec, host: Host) -> None:
        """Tell of a service from now on."""
        ...

    async def left(self) -> None: ...

    async def parted(self, host: Host) -> None: ...


class StatusFactory(Factory[StatusView], group="bema.status", api=VERSION, default="http"):
    """By how the pages are served."""


StatusFactory.register_lazy("http", "bema.sdk.status.server:StatusServer")

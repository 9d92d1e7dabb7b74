"""Health: the liveness and readiness hooks of a service, asked at intervals while it serves.

Laws: a service that is not ready gets no new callers, and nothing else happens; callers find it again once it is ready. A
service that says three times in a row that it is not alive ends its process, so that its launcher starts another. A hook
that raises or hangs counts as a no.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Iterable
from typing import Any

from bema.core.errors import Failed
from bema.core.spec import ServiceSpec
from bema.runtime.process.host import Host
from bema.runtime.tasks import is_cancelled

ASKED_AGAIN = 0.1  # seconds, while it is not ready
PATIENCE = 3  # times that it says that it is not alive

_log = logging.getLogger("bema.health")


class Health:
    """Asks the hooks of one service; `alive` and `ready` are their last answers."""

    def __init__(self, service: Any, spec: ServiceSpec, host: Host) -> None:
        self._service = service
        self._hooks = spec.hooks
        self._host = host
        self._hosted = host.component(spec.namespace, spec.name)
        self._noes: set[str] = set()
        self.alive = True
        self.ready = True

    async def until_ready(self) -> None:
        while not await self.ask_ready():  # noqa: ASYNC110 - it is asked, it cannot tell
            await asyncio.sleep(ASKED_AGAIN)

    async def watch(self) -> None:
        """Ask until cancelled; `Failed` when the service is not alive. Returns at once where it has no hooks."""
        misses = 0
        while self._hooks.readiness or self._hooks.liveness:
            await asyncio.sleep(self._host.limits.health if self.ready else ASKED_AGAIN)
            await self._host.say_ready(await self.ask_ready(), self._hosted)
            # one no may be a moment of load
            misses = 0 if await self.ask_alive() else misses + 1
            if misses == PATIENCE:
                raise Failed(f"the service says that it is not alive ({', '.join(self._hooks.liveness)})")

    async def ask_ready(self) -> bool:
        self.ready = await self._all(self._hooks.readiness)
        return self.ready

    async def ask_alive(self) -> bool:
        self.alive = self._hosted.alive = await self._all(self._hooks.liveness)
        return self.alive

    async def _all(self, names: Iterable[str]) -> bool:
        return all([await self._asked(name) for name in names])

    async def _asked(self, name: str) -> bool:
        try:
            async with asyncio.timeout(self._host.limits.health_answer):
                answer = getattr(self._service, name)()
                said = bool(await answer if inspect.isawaitable(answer) else answer)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or is_cancelled():
                raise
            if name not in self._noes:
                _log.warning("%s.%s failed: %r", type(self._service).__qualname__, name, error)
            said = False
        (self._noes.discard if said else self._noes.add)(name)
        return said

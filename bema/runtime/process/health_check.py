"""A health check: an endpoint called by its own process, as anybody would call it.

Law: an endpoint that is checked is not ready before its first answer, and not while the last check went unanswered. Any
answer will do, an error too: what is asked is whether it answers.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bema.core.errors import BemaError
from bema.core.spec import EndpointSpec
from bema.runtime.process.host import Host, ServedComponent
from bema.runtime.rpc.client_connection import Answered
from bema.runtime.rpc.connection import NEVER
from bema.runtime.rpc.pool import ConnectionPool
from bema.wire.rpc import frames
from bema.wire.values import codecs


class HealthCheck:
    def __init__(
        self,
        host: Host,
        pool: ConnectionPool,
        hosted: ServedComponent,
        spec: EndpointSpec,
        arguments: dict[str, Any],
    ) -> None:
        self._host = host
        self._pool = pool
        self._hosted = hosted
        self._name = spec.name
        self._payload = codecs.arguments_encoder(spec.parameters)(arguments)
        # from the start: until it has answered once, nobody knows that it can
        hosted.failing.add(spec.name)

    async def watch(self) -> None:
        """Check until cancelled."""
        while True:
            answers = await self.answers()
            if answers is (self._name in self._hosted.failing):
                (self._hosted.failing.discard if answers else self._hosted.failing.add)(self._name)
                await self._host.refresh()
            await asyncio.sleep(self._host.limits.health)

    async def answers(self) -> bool:
        """Whether it gives anything, or ends, in time."""
        try:
            async with asyncio.timeout(self._host.limits.health_answer):
                # over a socket, as a caller: a check within the process would pass while the
                # listener is gone
                conn = await self._pool.connect(self._host.record(self._hosted))
                route = self._hosted.route(self._name)
                ident, inflow = conn.open(frames.STREAM, route, self._payload, NEVER, None, b"")
                try:
                    # the first thing is enough: a stream that lasts for hours is well when it
                    # begins
                    if inflow.poll() is None:
                        await inflow.arrival()
                        inflow.poll()
                finally:
                    conn.cancel(ident)
                    inflow.close()
        except Answered:
            # an error of the endpoint is an answer: it was reached, and it decided
            return True
        except (BemaError, TimeoutError):
            return False
        return True

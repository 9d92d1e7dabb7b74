"""Descriptions: asking instances for the description of their service, once per digest for all that have the same.

Laws: a description that was read is not asked for again. An instance of an older bema, which answers none, is known by its
record. A description holds for the component that gave it alone: none can speak for another by giving its digest.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from bema.core import describe
from bema.core.describe import Description
from bema.core.errors import BadAnswer, BemaError, DeadlineExceeded
from bema.core.instance import Instance
from bema.runtime.rpc.client_connection import Answered
from bema.runtime.rpc.codec import CodecFactory
from bema.runtime.rpc.pool import ConnectionPool
from bema.wire.rpc import failures, frames
from bema.wire.values import codecs

REMEMBERED: Final = 256
PATIENCE: Final = 10.0  # seconds for a description; a stalled instance gives none


class Descriptions:
    """The descriptions of the instances that one pool connects to."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._known: dict[tuple[str, str, str], Description] = {}
        codec = CodecFactory.choose()()
        self._nothing = codec.arguments_encoder(())({})
        self._decode = codec.decoder(bytes)

    async def of(self, instance: Instance, timeout: float = PATIENCE) -> Description:
        """The description of an instance; `timeout` is in seconds. `Unavailable`, `DeadlineExceeded`, `BadAnswer` as a call."""
        if not instance.digest:
            return describe.told(instance)
        key = (instance.component_address, instance.deployment, instance.digest)
        if (known := self._known.get(key)) is not None:
            return known
        said = await self._asked(instance, timeout)
        if said.digest == instance.digest:  # it may have changed since its record was read
            self._known[key] = said
            while len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        return said

    async def shown(self, instance: Instance, timeout: float = PATIENCE) -> Description:
        """The description of an instance, or what its record tells where it cannot be asked."""
        try:
            return await self.of(instance, timeout)
        except BemaError:
            return describe.told(instance)

    async def _asked(self, instance: Instance, timeout: float) -> Description:
        route = f"{instance.component_address}.{describe.ENDPOINT}"
        try:
            async with asyncio.timeout(timeout):
                payload = await self._call(instance, route, timeout)
            return describe.decode(self._decode(payload))
        except TimeoutError as error:
            if isinstance(error, BemaError):
                raise
            raise DeadlineExceeded(f"{route} was not answered within {timeout:g} s") from error
        except Answered as error:
            raise failures.rebuild(error.failure, {}) from error
        except codecs.UNFIT as error:
            raise BadAnswer(f"{route} answered what is no description") from error

    async def _call(self, instance: Instance, route: str, timeout: float) -> bytes:
        connection = await self._pool.connect(instance)
        ident, future = connection.ask(
            frames.UNARY, route, self._nothing, monotonic() + timeout, timeout, frames.pack_metadata(None)
        )
        try:
            return await future
        except asyncio.CancelledError:
            connection.cancel(ident)
            raise

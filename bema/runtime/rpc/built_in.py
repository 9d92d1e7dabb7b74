"""Built-in endpoints: calls to what every instance answers and no record tells of, such as its description."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from bema.core.errors import BadAnswer, BemaError, DeadlineExceeded
from bema.core.instance import Instance
from bema.runtime.rpc.client_connection import Answered
from bema.runtime.rpc.codec import CodecFactory
from bema.runtime.rpc.pool import ConnectionPool
from bema.wire.rpc import failures, frames
from bema.wire.values import codecs


class BuiltIn:
    """Asks instances over the connections of one pool, without types."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        codec = CodecFactory.choose()()
        self._encode = codec.arguments_encoder(None)
        self._decode = codec.decoder(Any)

    async def ask(self, instance: Instance, endpoint: str, arguments: dict[str, Any], timeout: float) -> Any:
        """The answer within `timeout` seconds. `Unavailable`, `Disconnected`, `DeadlineExceeded`, `BadAnswer`, or what it raised."""
        route = f"{instance.component_address}.{endpoint}"
        try:
            async with asyncio.timeout(timeout):
                payload = await self._call(instance, route, self._encode(arguments), timeout)
            return self._decode(payload)
        except TimeoutError as error:
            if isinstance(error, BemaError):
                raise
            raise DeadlineExceeded(f"{route} was not answered within {timeout:g} s") from error
        except Answered as error:
            raise failures.rebuild(error.failure, {}) from error
        except codecs.UNFIT as error:
            raise BadAnswer(f"{route} answered what cannot be read") from error

    async def _call(self, instance: Instance, route: str, payload: bytes, timeout: float) -> bytes:
        connection = await self._pool.connect(instance)
        ident, future = connection.ask(
            frames.UNARY, route, payload, monotonic() + timeout, timeout, frames.pack_metadata(None)
        )
        try:
            return await future
        except asyncio.CancelledError:
            connection.cancel(ident)
            raise

"""A single step: the handler of an endpoint that is idempotent and not durable, as a durable call runs it.

Law: it may do what it always may: it runs in the loop of its process, and is done again where it had not ended when that died.
"""

from __future__ import annotations

import functools
from typing import Any

from bema.core.call import Call, Unary
from bema.core.spec import EndpointSpec
from bema.jobs.durable_call import DurableCall
from bema.wire.values import codecs


def in_one_step(endpoint: EndpointSpec, handler: Unary) -> Unary:
    """The handler as one step of a durable call, which is tried again as the call's record says."""
    encode, decode = codecs.encoder(endpoint.returns), codecs.decoder(endpoint.returns)

    @functools.wraps(handler)
    async def handle(call: Call) -> Any:
        async def run() -> bytes:
            # a plain call: what waits for a durable one is not for its handler
            plain = Call(call.route, call.arguments, id=call.id, metadata=call.metadata)
            return encode(await handler(plain))

        run.__qualname__ = endpoint.name
        return decode(await call.step(run, retry=call.retry if isinstance(call, DurableCall) else None))

    return handle

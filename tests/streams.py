"""Servers of asyncio streams, as tests put them where an instance or a peer would be.

asyncio leaves the connections that a server accepted to whoever handles them, and before Python 3.11.5 not even the end of
their writer closes them: so what was accepted here is closed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def unix_server(handler: Handler, *where: Any, **options: Any) -> AsyncIterator[asyncio.Server]:
    """`asyncio.start_unix_server`, ended with all that it accepted."""
    accepted: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.add(writer)
        await handler(reader, writer)

    server = await asyncio.start_unix_server(handle, *where, **options)
    try:
        yield server
    finally:
        server.close()
        for writer in accepted:
            writer.close()
        await asyncio.sleep(0)

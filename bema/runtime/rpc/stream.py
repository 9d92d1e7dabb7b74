"""Stream: the answers of one call, as an async iterator that can be closed early.

Law: whoever drops a stream gives its call up at once, and not when the collector comes by. So the generator that reads
the answers knows where the call was opened, never the stream or the answer that holds the generator.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from bema.runtime.rpc.client_connection import ClientConnection


class OpenCall:
    """Where a call was opened, once it was: what ends it from outside of who reads it."""

    __slots__ = ("conn", "ident")

    def __init__(self) -> None:
        self.conn: ClientConnection | None = None
        self.ident = 0

    def stop(self) -> None:
        if self.conn is not None:
            self.conn.stop(self.ident)

    def kill(self) -> None:
        if self.conn is not None:
            self.conn.kill(self.ident)


class Stream:
    """Iterate it; leaving `async with`, `aclose()`, a cancelled task or a dropped iterator give the call up.

    A stream that its producer finished just ends. One that was cut by a stop, a failure or a lost connection raises.
    """

    __slots__ = ("_items", "_opened")

    def __init__(self, items: AsyncGenerator[Any, None], opened: OpenCall) -> None:
        self._items = items
        self._opened = opened

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._items

    async def __anext__(self) -> Any:
        return await self._items.__anext__()

    async def aclose(self) -> None:
        """Give the call up, unless it has ended."""
        await self._items.aclose()

    def stop(self) -> None:
        """Ask the producer to end early; what it still sends can be read, then `StreamCut` tells that it is not all."""
        self._opened.stop()

    def kill(self) -> None:
        """Give the call up at once, from outside of who reads it, who is told so by `BemaError` of the code `cancelled`."""
        self._opened.kill()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

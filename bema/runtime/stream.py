"""Stream: the answers of one call, as an async iterator that can be closed early."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from bema.runtime.calling import CallingConnection


class Stream:
    """Iterate it; leaving `async with`, `aclose()`, a cancelled task or a dropped iterator give the call up.

    A stream that its producer finished just ends. One that was cut by a stop, a failure or a lost connection raises.
    """

    __slots__ = ("_conn", "_ident", "items")

    items: AsyncGenerator[Any, None]

    def __init__(self) -> None:
        self._conn: CallingConnection | None = None
        self._ident = 0

    def opened(self, conn: CallingConnection, ident: int) -> None:
        self._conn = conn
        self._ident = ident

    def __aiter__(self) -> AsyncIterator[Any]:
        return self.items

    async def __anext__(self) -> Any:
        return await self.items.__anext__()

    async def aclose(self) -> None:
        """Give the call up, unless it has ended."""
        await self.items.aclose()

    def stop(self) -> None:
        """Ask the producer to end early; what it still sends can be read, then `StreamCut` tells that it is not all."""
        if self._conn is not None:
            self._conn.stop(self._ident)

    def kill(self) -> None:
        """Give the call up at once, from outside of who reads it, who is told so by `BemaError` of the code `cancelled`."""
        if self._conn is not None:
            self._conn.kill(self._ident)

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

"""Stream: the answers of one call, as an async iterator that can be closed early.

Law: dropping a stream cancels its call at once, not when the garbage collector comes by. So no cycle may arise: the
generator that reads the answers refers to the `OpenCall`, never to the stream or the handle that holds the generator.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from bema.runtime.rpc.client_connection import ClientConnection


class OpenCall:
    """The connection and id of a call once it is open, to end it from outside of its reader."""

    __slots__ = ("asked_to_end", "conn", "ident")

    def __init__(self) -> None:
        self.conn: ClientConnection | None = None
        self.ident = 0
        self.asked_to_end = False  # by `stop` or `kill`: who wants the end wants no continuation

    def stop(self) -> None:
        """Ask the handler to end early; nothing before the call is open."""
        if self.conn is not None:
            self.asked_to_end = True
            self.conn.stop(self.ident)

    def kill(self) -> None:
        """Cancel the call; nothing before it is open."""
        if self.conn is not None:
            self.asked_to_end = True
            self.conn.kill(self.ident)


class Stream:
    """The answers of one call. Leaving its `async with`, `aclose()`, cancelling the reader or dropping it cancels the call.

    A stream that its producer finished just ends; one that was cut raises `StreamCut` or the handler's failure.
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
        """Cancel the call, unless it has ended."""
        await self._items.aclose()

    def stop(self) -> None:
        """Ask the producer to end early. The reader gets what is still sent, then `StreamCut`."""
        self._opened.stop()

    def kill(self) -> None:
        """Cancel the call from outside of its reader, who gets `BemaError` with the code `cancelled`."""
        self._opened.kill()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

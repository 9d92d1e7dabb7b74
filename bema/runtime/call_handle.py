"""The answer to a call, not yet asked for.

Law: calling gives an `Answer` and sends nothing; what is then done with it decides how it is asked for. Awaited, it is
one value; iterated with `async for`, a stream; iterated with `for`, the same stream by way of another thread.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Any, Self

from bema.runtime import bridge
from bema.runtime.rpc.stream import OpenCall

if TYPE_CHECKING:
    from bema.runtime.handles import EndpointClient


class CallHandle(Coroutine[Any, Any, Any]):
    """What a call gives: await it for one value, iterate it for a stream. It is asked for once.

    It is what the signature promises: a coroutine to `create_task`, an async iterator to `anext` and `aclosing`.
    """

    __slots__ = ("_asked", "_client", "_given", "_opened", "_stream")

    def __init__(self, client: EndpointClient, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self._client = client
        self._given = (arguments, keywords)
        self._asked: Coroutine[Any, Any, Any] | None = None
        self._stream: AsyncGenerator[Any, None] | None = None
        self._opened = OpenCall()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine().__await__()

    def send(self, value: Any) -> Any:
        return self._coroutine().send(value)

    def throw(self, kind: Any, value: Any = None, trace: Any = None) -> Any:
        return self._coroutine().throw(kind if value is None else value)

    def close(self) -> None:
        if self._asked is not None:
            self._asked.close()

    def _coroutine(self) -> Coroutine[Any, Any, Any]:
        if self._asked is None:
            self._asked = self._client.ask(*self._given)
        return self._asked

    def __aiter__(self) -> AsyncGenerator[Any, None]:
        if self._stream is None:
            self._stream = self._client.follow(*self._given, self._opened)
        return self._stream

    def stop(self) -> None:
        """Ask the producer of a stream to end early; what it still sends can be read, then `StreamCut` tells of it."""
        self._opened.stop()

    def kill(self) -> None:
        """Give a stream up while somebody else reads it."""
        self._opened.kill()

    async def __anext__(self) -> Any:
        return await anext(self.__aiter__())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give the call up, unless it has ended."""
        await self.__aiter__().aclose()

    def __iter__(self) -> Iterator[Any]:
        return bridge.iterate(self._client, *self._given)

    def result(self) -> Any:
        """The one value, for code that does not run in an event loop."""
        return bridge.result(self._client, *self._given)

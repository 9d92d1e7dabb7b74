"""Calls from code that cannot await: the same runtime once more, in a loop on a thread of its own.

The thread has its own connections, so it works beside a loop that is blocked by whoever iterates here. To its own
process it would wait for itself, so that is refused.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from bema.core.errors import Invalid
from bema.runtime.threads import WAITS

if TYPE_CHECKING:
    from bema.runtime.distributed import DistributedRuntime
    from bema.runtime.handles import EndpointClient

T = TypeVar("T")
_END = object()


class Bridge:
    """A runtime in a thread, made from the runtime of a loop."""

    def __init__(self, runtime: DistributedRuntime) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bema-bridge", daemon=True)
        self._thread.start()
        self.runtime = runtime.twin()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._begin(work).result()

    def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a call; where a handler's function waits for it, until the handler is given up."""
        waits = WAITS.get()
        return self.run(work) if waits is None else waits.result(self._begin(work))

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        self.run(self.runtime.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def result(client: EndpointClient, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """One answer, from sync code."""
    bridge = client.runtime.bridge()
    return bridge.ask(_ask(bridge, client, arguments, keywords, _in_a_loop()))


def iterate(client: EndpointClient, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Iterator[Any]:
    """A stream of answers, from sync code; leaving it early gives the call up."""
    bridge = client.runtime.bridge()
    stream = bridge.ask(_open(bridge, client, arguments, keywords, _in_a_loop()))
    try:
        while (answer := bridge.ask(_next(stream))) is not _END:
            yield answer
    finally:
        bridge.run(stream.aclose())


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _ask(
    bridge: Bridge, client: EndpointClient, arguments: tuple[Any, ...], keywords: dict[str, Any], in_a_loop: bool
) -> Any:
    return await (await _twin(bridge, client, in_a_loop)).ask(arguments, keywords)


async def _open(
    bridge: Bridge, client: EndpointClient, arguments: tuple[Any, ...], keywords: dict[str, Any], in_a_loop: bool
) -> Any:
    return (await _twin(bridge, client, in_a_loop)).follow(arguments, keywords)


async def _next(stream: Any) -> Any:
    return await anext(stream, _END)


async def _twin(bridge: Bridge, client: EndpointClient, in_a_loop: bool) -> EndpointClient:
    """The client once more on this side, kept from calling the process whose loop is being blocked."""
    twin = client.again(bridge.runtime, client.options)
    address = client.address
    view = await bridge.runtime.view(address.namespace, address.component)
    if in_a_loop:
        serving = [i for i in view.instances() if any(info.name == address.endpoint for info in i.endpoints)]
        if serving and all(instance.pid == os.getpid() for instance in serving):
            raise Invalid(
                f"a plain `for` over {address} would wait for its own process for ever; use `async for`, or `await`",
            )
    return twin

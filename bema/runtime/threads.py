"""Plain functions as handlers: a sync handler runs in a thread, so that it blocks nobody's event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from bema.core.call import Call, Stream, Unary

_END = object()


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in the loop's executor with the context of the caller."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(None, context.run, function, *arguments)


def unary_in_thread(function: Callable[[Call], Any]) -> Unary:
    def unary(call: Call) -> Any:
        return in_thread(function, call)

    return unary


def stream_in_thread(function: Callable[[Call], Iterator[Any]]) -> Stream:
    """A sync generator as a stream: each step in a thread, closed when the stream is."""

    async def stream(call: Call) -> AsyncIterator[Any]:
        items = await in_thread(function, call)
        step: asyncio.Future[Any] | None = None
        try:
            while True:
                step = asyncio.ensure_future(in_thread(next, items, _END))
                item = await asyncio.shield(step)
                if item is _END:
                    return
                yield item
        finally:
            if step is not None and not step.done():
                # a generator cannot be closed while a thread is inside it
                await asyncio.wait([step])
            close = getattr(items, "close", None)
            if close is not None:
                await in_thread(close)

    return stream

"""`dynamo.runtime`: the runtime, and the two decorators of programs that serve without a class."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from bema.core.errors import BadDeclaration, Invalid
from bema.runtime.distributed import Component, DistributedRuntime, Endpoint, Namespace
from bema.runtime.handles import EndpointClient as Client

__all__ = [
    "Client",
    "Component",
    "DistributedRuntime",
    "Endpoint",
    "Namespace",
    "dynamo_endpoint",
    "dynamo_worker",
]


def dynamo_worker(
    static: bool = False,
) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Coroutine[Any, Any, None]]]:
    """Give the function a runtime as its first argument, and release it when the function ends."""
    if static:
        raise BadDeclaration("dynamo_worker(static=True): there are no static workers here", fix="Leave `static` out.")

    def decorate(function: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, None]]:
        @functools.wraps(function)
        async def run(*arguments: Any, **keywords: Any) -> None:
            async with DistributedRuntime() as runtime:
                await function(runtime, *arguments, **keywords)

        del run.__wrapped__  # its signature is its own: it takes no runtime
        return run

    return decorate


def dynamo_endpoint(request_type: Any, response_type: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare what a handler takes and yields: the same as annotating it, and enforced both ways."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.isasyncgenfunction(function):
            raise BadDeclaration(f"@dynamo_endpoint decorates async generators, not {function!r}")
        name = list(inspect.signature(function).parameters)[-1]

        @functools.wraps(function)
        async def handle(*arguments: Any, **keywords: Any) -> AsyncIterator[Any]:
            async for answer in function(*arguments, **keywords):
                yield _checked(answer, response_type, function.__qualname__)

        handle.__annotations__ = {
            **function.__annotations__,
            name: request_type,
            "return": AsyncIterator[response_type],
        }
        del handle.__wrapped__
        read: Any = handle
        read.__signature__ = inspect.signature(function)
        return handle

    return decorate


def _checked(answer: Any, response_type: Any, where: str) -> Any:
    if isinstance(answer, response_type):
        return answer
    validate = getattr(response_type, "model_validate", None)
    try:
        return validate(answer) if validate else msgspec.convert(answer, response_type)
    except ValueError as error:
        raise Invalid(f"{where} yielded what is no {response_type.__qualname__}: {error}") from error

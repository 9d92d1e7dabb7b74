"""Extensions: parts that add to a service what its class or an endpoint names in `extra`, such as `extra={"jobs": ...}`.

Laws: this module names no extension; ours come in by entry point like anybody's. An extension that a class names is opened
where it is installed. One that an endpoint needs on demand alone is opened when it is asked, and not even looked for
before. An endpoint needs the extension that it names: without it, that endpoint refuses its calls with `extension_missing`,
and the others are served. An extension closes what it opened, after the last call.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from bema.core.call import Call, Interceptor, as_stream
from bema.core.deferred import deferred
from bema.core.errors import Refused
from bema.core.spec import RESERVED, EndpointSpec, ServiceSpec
from bema.core.version import VERSION
from bema.parts import Factory
from bema.runtime.rpc.adapter import off_the_loop
from bema.sdk.context import Context

if TYPE_CHECKING:
    from bema.sdk import on_demand
else:  # of a service that has idempotent endpoints
    on_demand = deferred("bema.sdk.on_demand")

_OWN = {*RESERVED, "raises"}  # facts of an endpoint that name no room


class Bound(msgspec.Struct, frozen=True):
    """The objects and interceptors that an extension gives to one service."""

    values: Mapping[type[Any], Any] = {}  # by type: passed to a constructor or an entrypoint that asks for the type
    interceptors: Mapping[str, Interceptor] = {}  # by endpoint: around its handler


class Extension(Protocol):
    """One extension in one service: made without arguments, opened before the constructor runs."""

    async def open(self, context: Context, spec: ServiceSpec) -> Bound:
        """Prepare for one service, before its constructor runs. An exception ends the start of the service."""
        ...

    async def close(self) -> None:
        """Release what `open` opened. Called once, after the last call, and only where `open` succeeded."""
        ...


class ExtensionFactory(Factory[Extension], group="bema.extensions", api=VERSION):
    """Extensions by the name that `extra` gives them."""


@contextlib.asynccontextmanager
async def extended(context: Context) -> AsyncIterator[None]:
    """Open the extensions that the context's service names, and close them at the end of the `with`."""
    spec = context.spec
    needed = {endpoint.name: needs(endpoint) for endpoint in spec.endpoints}
    # in the order of the class: the first that is named is the outermost around a call
    wanted = list(dict.fromkeys([*spec.facts, *(name for names in needed.values() for name in names)]))
    later = {
        said.extension: said for each in spec.endpoints if (said := each.on_demand) and said.extension not in wanted
    }
    wanted += [name for name in later if on_demand.is_kept(context, name)]
    if not wanted and not later:  # as most services: nothing is looked for
        yield
        return
    async with contextlib.AsyncExitStack() as opened:
        if wanted:
            await _open_all(wanted, needed, context, opened)
        for name, said in later.items():
            if name not in wanted:
                stand_in = on_demand.StandIn(context, said, functools.partial(_open_later, name, context))
                opened.push_async_callback(stand_in.close)
                stand_in.begin()
        yield


async def _open_all(
    wanted: list[str], needed: Mapping[str, list[str]], context: Context, opened: contextlib.AsyncExitStack
) -> None:
    spec = context.spec
    ExtensionFactory.discover_plugins()
    there = set(ExtensionFactory.names())
    for endpoint in spec.endpoints:
        if missing := [name for name in needed[endpoint.name] if name not in there]:
            context.interceptors[endpoint.name] = [_refusing(missing[0], endpoint, spec)]
    for name in wanted:
        if name in there:
            await _open(name, context, opened)


def needs(endpoint: EndpointSpec) -> list[str]:
    """The names of the extensions that an endpoint needs."""
    return [name for name in endpoint.facts if name not in _OWN]


async def _open(name: str, context: Context, opened: contextlib.AsyncExitStack) -> None:
    extension = ExtensionFactory.create_instance(name)
    bound = await extension.open(context, context.spec)
    # after it is open: one that failed to open has nothing that it would close
    opened.push_async_callback(extension.close)
    context.bound.update(bound.values)
    for endpoint, interceptor in bound.interceptors.items():
        context.interceptors.setdefault(endpoint, []).append(interceptor)


async def _open_later(name: str, context: Context, spec: ServiceSpec) -> Callable[[], Awaitable[None]]:
    """Open an extension for endpoints that are served: it gets their handlers, and their callers are answered as ever."""
    ExtensionFactory.discover_plugins()
    if name not in ExtensionFactory.names():
        raise Refused(
            f"{spec.address} needs the extension {name!r}, which is not installed here", code="extension_missing"
        )
    extension = ExtensionFactory.create_instance(name)
    bound = await extension.open(context, spec)
    hosted = context.component.hosted
    for endpoint, interceptor in bound.interceptors.items():
        # without what looks at calls of callers: those of the extension are its own
        interceptor(off_the_loop(hosted.handlers[endpoint], hosted.specs[endpoint]))
    return extension.close


def _refusing(extension: str, endpoint: EndpointSpec, spec: ServiceSpec) -> Interceptor:
    async def refuse(call: Call) -> Any:
        raise Refused(
            f"{spec.address}.{endpoint.name} needs the extension {extension!r}, which is not installed here",
            code="extension_missing",
        )

    return lambda handler: as_stream(refuse) if endpoint.shape.streams_out else refuse

"""`dynamo.runtime`: the runtime, its exceptions, and the decorators of programs that serve without a class.

Every name is an alias of ours, or a call into the one real path.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from logging import getLogger  # the module of that name beside this one would take its place
from typing import TYPE_CHECKING, Any

from bema.compat.dynamo.clients import Client, Replies, RouterMode, UnaryClient
from bema.compat.dynamo.context import Annotated, Cancelled, Context
from bema.compat.dynamo.handlers import dynamo_endpoint
from bema.compat.dynamo.metadata import ContextMetadata
from bema.compat.dynamo.places import Component, Endpoint, Namespace
from bema.compat.dynamo.refused import backend, refuse
from bema.core.errors import (
    BadDeclaration,
    BemaError,
    DeadlineExceeded,
    Disconnected,
    Invalid,
    Overloaded,
    RemoteError,
    StreamCut,
    Unavailable,
)
from bema.core.naming import Address, check_name
from bema.runtime import distributed
from bema.runtime.discovery.discovery import Discovery
from bema.runtime.discovery.flock import FlockDiscovery
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.tasks import Tasks
from bema.sdk.signals import Signals
from bema.sdk.status import StatusFactory, StatusView
from bema.sdk.status.engine_routes import Function, routes_of

__all__ = [
    "Annotated",
    "Cancelled",
    "CannotConnect",
    "Client",
    "Component",
    "ConnectionTimeout",
    "Context",
    "ContextMetadata",
    "Disconnected",
    "DistributedRuntime",
    "DynamoException",
    "Endpoint",
    "EngineShutdown",
    "InvalidArgument",
    "Namespace",
    "Replies",
    "RouterMode",
    "RouterQueueLimitExceeded",
    "StreamIncomplete",
    "UnaryClient",
    "Unknown",
    "WorkerUnavailable",
    "dynamo_endpoint",
    "dynamo_worker",
    "serve_unary_endpoint",
]

DynamoException = BemaError
Unknown = RemoteError
InvalidArgument = Invalid
CannotConnect = WorkerUnavailable = Unavailable
ConnectionTimeout = DeadlineExceeded
EngineShutdown = StreamIncomplete = StreamCut
RouterQueueLimitExceeded = Overloaded

_DISCOVERIES = {
    "etcd": "Use discovery_backend='file': instances of one machine meet in a folder, with no server.",
    "kubernetes": "Use discovery_backend='file' inside a pod, and `bema kubernetes manifests` for services.",
}
_REQUESTS = {"nats": "Use request_plane='tcp': calls go from process to process, with no server between."}
_EVENTS = dict.fromkeys(("zmq", "nats"), "Leave event_plane out: serve an endpoint that streams the events.")
_RESPONSES = {"quic": "Leave response_plane out: answers come back over the connection of their request."}
_NATS = {True: "Leave enable_nats out: nothing here needs a broker."}

_log = getLogger("bema.service")
_memory: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, MemoryDiscovery] = weakref.WeakKeyDictionary()


class DistributedRuntime(distributed.DistributedRuntime):
    """Ours, made as that one is made: `discovery_backend` is "file" or "mem", `request_plane` is "tcp"."""

    def __init__(
        self,
        event_loop: asyncio.AbstractEventLoop | None = None,
        discovery_backend: str = "file",
        request_plane: str = "tcp",
        enable_nats: bool | None = None,
        *,
        event_plane: str | None = None,
        response_plane: str | None = None,
    ) -> None:
        backend("discovery_backend", discovery_backend, _DISCOVERIES)
        backend("request_plane", request_plane, _REQUESTS)
        backend("enable_nats", enable_nats, _NATS)
        backend("event_plane", event_plane, _EVENTS)
        backend("response_plane", response_plane, _RESPONSES)
        if (discovery_backend, request_plane) not in (("file", "tcp"), ("mem", "tcp")):
            raise Invalid(
                f"there is no DistributedRuntime({discovery_backend=}, {request_plane=}): its instances meet by 'file' or 'mem',"
                " and its calls go by 'tcp'"
            )
        self.event_loop = event_loop or asyncio.get_running_loop()
        super().__init__(_meeting(self.event_loop, discovery_backend))
        self.leaving = Tasks("streams that were stopped and left")
        self._status: StatusView | None = None
        if os.environ.get("BEMA_STATUS_PORT"):
            self._status = StatusFactory.choose().joined(self.host, self.event_loop)

    def namespace(self, name: str) -> Namespace:
        return Namespace(self, check_name(name, "namespace"))

    def endpoint(self, address: str) -> Endpoint:
        """The endpoint at `namespace.component.endpoint`; `ValueError` for anything else."""
        try:
            found = Address.parse(address)
        except Invalid as error:
            raise _BadAddress(error.message, code=error.code) from error
        return self.namespace(found.namespace).component(found.component).endpoint(found.endpoint)

    def shutdown(self) -> None:
        """Ask everything that is served here to drain and end."""
        self.stop()

    def set_health_status(self, healthy: bool) -> None:
        """Whether anybody new is sent here."""
        self.host.ready = healthy
        self.host.mark()

    @property
    def system_status_server_url(self) -> str | None:
        """Where this process tells of itself; None without `BEMA_STATUS_PORT`."""
        return None if self._status is None else self._status.url

    def register_engine_route(self, route_name: str, callback: Function) -> None:
        """Answer `POST /engine/ROUTE_NAME` of the status port with what `callback`, which runs in this loop, makes of the body.

        Both are JSON objects. Without a status port the route is kept, logged as out of reach, and asked by nobody.
        """
        routes_of(self.event_loop).add(f"/engine/{route_name}", callback, self)
        if self._status is None:
            _log.warning("nobody can reach /engine/%s: set BEMA_STATUS_PORT to have a status port", route_name)

    async def close(self) -> None:
        status, self._status = self._status, None
        routes_of(self.event_loop).remove(self)
        await self.leaving.stop()
        await super().close()
        if status is not None:
            await status.parted(self.host)

    if not TYPE_CHECKING:  # with it, a misspelt name would be Any to type checkers

        def __getattr__(self, name: str) -> Any:
            return refuse("DistributedRuntime", name)


class _BadAddress(Invalid, ValueError):
    """As that runtime says it."""


def _meeting(loop: asyncio.AbstractEventLoop, name: str) -> Discovery:
    return FlockDiscovery() if name == "file" else _memory.setdefault(loop, MemoryDiscovery())


def dynamo_worker(
    static: bool = False, *, enable_nats: bool | None = None, register_shutdown: bool = False
) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Coroutine[Any, Any, None]]]:
    """Give the function a runtime as its first argument, and release it when the function ends.

    With `register_shutdown` the first SIGTERM or SIGINT shuts the runtime down, the second ends the process.
    """
    if static:
        raise BadDeclaration("dynamo_worker(static=True): there are no static workers here; leave `static` out")
    backend("enable_nats", enable_nats, _NATS, of="dynamo_worker")

    def decorate(function: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, None]]:
        @functools.wraps(function)
        async def run(*arguments: Any, **keywords: Any) -> None:
            async with DistributedRuntime() as runtime:
                with Signals(runtime.stop) if register_shutdown else contextlib.nullcontext():
                    await function(runtime, *arguments, **keywords)

        del run.__wrapped__  # its signature is its own: it takes no runtime
        return run

    return decorate


async def serve_unary_endpoint(endpoint: Endpoint, handler: Callable[..., Any], **options: Any) -> None:
    """Serve an `async def` that gives one reply."""
    await endpoint.serve_endpoint(handler, **options)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        return refuse("dynamo.runtime", name)

"""DistributedRuntime: a process's hold on discovery and transports, and the names things are reached by.

One per event loop; any number per process. `namespace().component().endpoint()` and `endpoint("ns.comp.ep")` are the same
place. Nothing is opened before it is used, and `close()` releases all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, cast

import msgspec

from bema.core import settings
from bema.core.call import CURRENT, Handler, Interceptor
from bema.core.describe import Description
from bema.core.errors import BadDeclaration, Refused, Unavailable
from bema.core.limits import Limits
from bema.core.naming import Address, check_endpoint, check_name
from bema.core.spec import EndpointSpec, ServiceSpec, check_bound
from bema.runtime.bridge import Bridge
from bema.runtime.discovery.discovery import Discovery, DiscoveryFactory, View, wait_for
from bema.runtime.handles import CallingRuntime, EndpointClient, GivenOptions, Options, ServiceHandle
from bema.runtime.process.health_check import HealthCheck
from bema.runtime.process.host import Host, LaunchOptions, ServedComponent
from bema.runtime.rpc import signatures
from bema.runtime.rpc.adapter import handler_of, off_the_loop
from bema.runtime.rpc.descriptions import PATIENCE, Descriptions
from bema.runtime.rpc.pool import ConnectionPool

T = TypeVar("T")

# the component whose code runs, set by start(); while a call is answered, the call knows better
INSIDE: ContextVar[tuple[str, str] | None] = ContextVar("bema_inside", default=None)


class DistributedRuntime:
    """Serves endpoints and calls them. `discovery` is where instances meet; without one, the discovery in use.

    `limits` are bounds of the table that differ here from what the settings say; `slots` is how many calls run at once, `queue` how many more wait.
    """

    def __init__(
        self,
        discovery: Discovery | None = None,
        *,
        options: LaunchOptions | None = None,
        limits: Limits | Mapping[str, float] | None = None,
        slots: int | None = None,
        queue: int = 0,
    ) -> None:
        held = settings.current()
        self.settings = held.but(limits if isinstance(limits, Limits) else held.limits.but(**(limits or {})))
        self.limits = self.settings.limits
        self.discovery: Discovery = DiscoveryFactory.open(self.settings) if discovery is None else discovery
        self.host = Host(self.discovery, options or LaunchOptions(), self.settings)
        self.host.slots = None if slots is None else check_bound("slots", slots, 1)
        self.host.queue = check_bound("queue", queue, 0)
        self.stopping = asyncio.Event()
        self._pool: ConnectionPool | None = None
        self._descriptions: Descriptions | None = None
        self._views: dict[tuple[str, str], asyncio.Task[View]] = {}
        self._handles: dict[tuple[Any, ...], Any] = {}
        self._bridge: Bridge[CallingRuntime] | None = None

    def namespace(self, name: str) -> Namespace:
        return Namespace(self, check_name(name, "namespace"))

    def endpoint(self, address: str) -> Endpoint:
        """The endpoint at `namespace.component.endpoint`."""
        found = Address.parse(address)
        return self.namespace(found.namespace).component(found.component).endpoint(found.endpoint)

    def client(self, service: Callable[..., T], **options: Unpack[GivenOptions]) -> T:
        """A typed handle of a service: its endpoints are called like its methods, one handle per set of options.

        An `async def` is awaited, a generator is iterated with `async for`. Options: timeout, metadata, instance, pick,
        wait.
        """
        spec, chosen = spec_of(service), Options.of(options)
        skip = self.own_instance(spec.namespace, spec.name)
        key = (service, skip, *((name, repr(value)) for name, value in sorted(options.items())))
        if key not in self._handles:
            self._handles[key] = ServiceHandle(self, spec, chosen, skip)
        return cast("T", self._handles[key])

    async def view(self, namespace: str, component: str) -> View:
        """The instances of a component, kept current until the runtime is closed."""
        key = (namespace, component)
        if key not in self._views:
            opening = asyncio.ensure_future(self.discovery.view(namespace, component))
            self._views[key] = opening
            opening.add_done_callback(lambda done: self._viewed(key, done))
        return await asyncio.shield(self._views[key])

    def _viewed(self, key: tuple[str, str], done: asyncio.Task[View]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._views.pop(key, None)

    @property
    def pool(self) -> ConnectionPool:
        if self._pool is None:
            self._pool = ConnectionPool(settings=self.settings)
        return self._pool

    @property
    def descriptions(self) -> Descriptions:
        """What the services of instances say of themselves."""
        if self._descriptions is None:
            self._descriptions = Descriptions(self.pool)
        return self._descriptions

    def own_instance(self, namespace: str, component: str) -> int | None:
        """The id of the instance that asks, if it is one of this component: its clients skip it."""
        asks = _asking()
        hosted = self.host.components.get((namespace, component))
        return hosted.instance_id if hosted is not None and asks == (namespace, component) else None

    def stop(self) -> None:
        """Ask whatever serves here to drain and end."""
        self.stopping.set()

    async def drain(self, grace: float | None = None) -> bool:
        """Leave discovery, refuse new calls, finish running ones within `grace` seconds."""
        return await self.host.drain(grace)

    async def close(self) -> None:
        """Release what is held: records, listeners, connections, views. Safe to call twice."""
        self.stopping.set()
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            await asyncio.to_thread(bridge.close)
        await self.host.close()
        if self._pool is not None:
            await self._pool.close()
        views, self._views = self._views, {}
        for view in await asyncio.gather(*views.values(), return_exceptions=True):
            if not isinstance(view, BaseException):
                await view.close()
        self._handles.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def bridge(self) -> Bridge[CallingRuntime]:
        """The way in for code that cannot await; made when first needed."""
        if self._bridge is None or self._bridge.stayed_behind():
            self._bridge = Bridge(self.twin)
        return self._bridge

    def twin(self) -> DistributedRuntime:
        """A runtime for another event loop that meets the same instances."""
        reopened = getattr(self.discovery, "reopened", None)
        if reopened is None:
            raise Refused(
                f"{type(self.discovery).__name__} serves one event loop: calls from sync code need another",
                fix="Use `async for` or `await`.",
            )
        return DistributedRuntime(reopened(), limits=self.limits)


class Namespace:
    def __init__(self, runtime: DistributedRuntime, name: str) -> None:
        self.runtime = runtime
        self.name = name

    def component(self, name: str) -> Component:
        return Component(self, check_name(name, "component"))

    def __repr__(self) -> str:
        return f"<namespace {self.name}>"


class Component:
    """Where a service's instances are found."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        self.runtime = namespace.runtime
        self.namespace = namespace
        self.name = name

    @property
    def address(self) -> str:
        return f"{self.namespace.name}.{self.name}"

    @property
    def hosted(self) -> ServedComponent:
        return self.runtime.host.component(self.namespace.name, self.name)

    async def create_service(self) -> None:
        """Take the component as ours to serve. It is listed once an endpoint is served."""
        self.hosted  # noqa: B018 - the instance id is taken here

    def endpoint(self, name: str) -> Endpoint:
        return Endpoint(self, check_endpoint(name))

    async def description(self, timeout: float = PATIENCE, *, wait: float = 0.0) -> Description:
        """What its newest instance says of the service: endpoints, types, schemas.

        `wait` is how many seconds to wait for an instance; `Unavailable` where none is there.
        """
        view = await self.runtime.view(self.namespace.name, self.name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await wait_for(view, bool)
        if not (found := view.instances()):
            raise Unavailable(f"no instance of {self.address} is there")
        return await self.runtime.descriptions.of(max(found, key=lambda instance: instance.since), timeout)

    async def add(self, spec: EndpointSpec, function: Callable[..., Any], around: Interceptor | None = None) -> None:
        """Answer calls to one more endpoint; `show` tells of it. `around` stands between its callers and the function."""
        await self._answer(spec, handler_of(function, spec), around)

    async def _answer(self, spec: EndpointSpec, handler: Handler, around: Interceptor | None) -> None:
        if around is not None:
            handler, spec = around(off_the_loop(handler, spec)), msgspec.structs.replace(spec, threaded=False)
        await self.runtime.host.add(self.hosted, spec, handler)

    async def publish(self, **data: Any) -> None:
        """Say something about this instance in its record, for who chooses among instances; None takes it back."""
        hosted = self.hosted
        hosted.data = {name: value for name, value in {**hosted.data, **data}.items() if value is not None}
        if self.runtime.host.is_shown(hosted):
            await self.show()

    async def show(self) -> None:
        """Tell discovery what is served here."""
        await self.runtime.host.show(self.hosted)

    def __repr__(self) -> str:
        return f"<component {self.address}>"


class Endpoint:
    def __init__(self, component: Component, name: str) -> None:
        self.runtime = component.runtime
        self.component = component
        self.name = name

    @property
    def address(self) -> Address:
        return Address(self.component.namespace.name, self.component.name, self.name)

    def client(self, **options: Unpack[GivenOptions]) -> EndpointClient:
        """The client of this endpoint; it may be awaited until an instance is there. Options as of `runtime.client`."""
        skip = self.runtime.own_instance(self.component.namespace.name, self.component.name)
        return EndpointClient(self.runtime, self.address, None, Options.of(options), skip)

    async def serve_endpoint(
        self,
        handler: Callable[..., Any],
        *,
        graceful_shutdown: bool = True,
        idempotent: bool = False,
        metrics_labels: Iterable[tuple[str, str]] = (),
        health_check_payload: Mapping[str, Any] | None = None,
    ) -> None:
        """Serve `handler` here until the runtime is asked to stop, then drain.

        `handler` is any function or bound method; its signature says what it takes and whether it streams. With
        `health_check_payload`, its arguments, it is called by ourselves now and then: while it does not answer, nobody is
        sent here. `metrics_labels` are added to what is counted of it.
        """
        signatures.check(handler, self.name, method=False)
        spec = signatures.read(handler, self.name, method=False, idempotent=idempotent)
        if labels := dict(metrics_labels):
            if bad := [name for name in labels if not (name.isidentifier() and name.isascii())]:
                raise BadDeclaration(f"{self.address}: {bad[0]!r} is no name of a label: letters, digits and '_'")
            spec = msgspec.structs.replace(spec, facts={**spec.facts, "metrics_labels": labels})
        await self.component.add(spec, handler)
        hosted = self.component.hosted
        checking = None
        if health_check_payload is not None:
            check = HealthCheck(self.runtime.host, self.runtime.pool, hosted, spec, dict(health_check_payload))
            checking = asyncio.ensure_future(check.watch())
        try:
            await self.component.show()
            await self.runtime.stopping.wait()
            await self.runtime.drain(None if graceful_shutdown else 0.0)
        except asyncio.CancelledError:
            await self.runtime.host.remove(hosted, self.name)
            raise
        finally:
            if checking is not None:
                checking.cancel()

    async def hide(self) -> None:
        """Tell nobody of it for a while; whoever holds a connection is answered still."""
        await self.runtime.host.tell(self.component.hosted, self.name, whether=False)

    async def show(self) -> None:
        """Tell of it again."""
        await self.runtime.host.tell(self.component.hosted, self.name, whether=True)

    def __repr__(self) -> str:
        return f"<endpoint {self.address}>"


def _asking() -> tuple[str, str] | None:
    call = CURRENT.get()
    if call is None or call.route.count(".") != 2:
        return INSIDE.get()
    namespace, component, _ = call.route.split(".")
    return namespace, component


def spec_of(service: Callable[..., Any]) -> ServiceSpec:
    """The spec of a decorated class, or `BadDeclaration`."""
    read = getattr(service, "__bema_spec__", None)
    if read is None:
        raise BadDeclaration(
            f"{getattr(service, '__qualname__', service)} is not a service: decorate it with @service(...)"
        )
    return cast("ServiceSpec", read())


def connect(discovery: Discovery | None = None) -> DistributedRuntime:
    """A runtime for calling: `async with bema.connect() as runtime: ...`."""
    return DistributedRuntime(discovery)

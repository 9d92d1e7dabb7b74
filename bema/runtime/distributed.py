"""DistributedRuntime: the object through which a process serves endpoints and calls those of others.

Laws: a runtime belongs to one event loop, and a process may have several runtimes. The runtime opens nothing before it is
used, and `close()` releases everything that it opened. `namespace("n").component("c").endpoint("e")` and
`endpoint("n.c.e")` name the same endpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast

import msgspec

from bema.core import settings
from bema.core.call import CURRENT, Handler, Interceptor
from bema.core.deferred import deferred
from bema.core.errors import BadDeclaration, Refused, Unavailable
from bema.core.limits import Limits
from bema.core.naming import Address, check_endpoint, check_name
from bema.core.spec import PATIENCE, EndpointSpec, ServiceSpec, check_bound
from bema.runtime.alarms import AlarmClock, SystemAlarmClock
from bema.runtime.discovery.discovery import Discovery, DiscoveryFactory, View, wait_for
from bema.runtime.process.host import Host, LaunchOptions, ServedComponent
from bema.runtime.rpc import signatures
from bema.runtime.rpc.adapter import handler_of, off_the_loop

if TYPE_CHECKING:
    from bema.core import describe
    from bema.runtime import bridge as bridges
    from bema.runtime import handles
    from bema.runtime.process import health_check
    from bema.runtime.rpc import descriptions as described
    from bema.runtime.rpc import offers
    from bema.runtime.rpc import pool as pools
else:  # what only a process needs that calls others, or checks itself as others call it
    describe = deferred("bema.core.describe")
    bridges = deferred("bema.runtime.bridge")
    handles = deferred("bema.runtime.handles")
    health_check = deferred("bema.runtime.process.health_check")
    described = deferred("bema.runtime.rpc.descriptions")
    offers = deferred("bema.runtime.rpc.offers")
    pools = deferred("bema.runtime.rpc.pool")

T = TypeVar("T")

# The component whose code runs, as start() set it. While a call is answered, the call's own route takes precedence: several
# services of one process share the context that start() left.
INSIDE: ContextVar[tuple[str, str] | None] = ContextVar("bema_inside", default=None)


class DistributedRuntime:
    """Serves endpoints and calls them, in the event loop that it is made in.

    - `discovery`: where instances meet; without one, the discovery that the settings name.
    - `options`: what the launcher said; without them, those of a process that was started by hand.
    - `limits`: bounds by name that differ here from the settings: seconds, bytes or counts, as the table has them.
    - `slots`: how many calls run at once; None for as many as come.
    - `queue`: how many more calls wait for a slot; the next is refused with `Overloaded` before it runs.

    Raises:
        BadDeclaration: `slots` is below 1, or `queue` below 0.
        Refused: `limits` names a bound that there is not (code `bad_setting`).
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
        # of what is stored and waits for an instant; sockets have their own
        self.clock: AlarmClock = SystemAlarmClock()
        self.forgetful = False  # what would outlive it is kept in memory
        self.quiet: list[Callable[[], bool]] = []  # asked by who waits until nothing goes on
        self._pool: pools.ConnectionPool | None = None
        self._descriptions: described.Descriptions | None = None
        self._views: dict[tuple[str, str], asyncio.Task[View]] = {}
        self._handles: dict[tuple[Any, ...], Any] = {}
        self._bridge: bridges.Bridge[handles.CallingRuntime] | None = None

    def namespace(self, name: str) -> Namespace:
        """The namespace of that name; `BadDeclaration` (code `bad_name`) where the name breaks the naming rule."""
        return Namespace(self, check_name(name, "namespace"))

    def endpoint(self, address: str) -> Endpoint:
        """The endpoint at `namespace.component.endpoint`; `Invalid` (code `bad_name`) for any other form."""
        found = Address.parse(address)
        return self.namespace(found.namespace).component(found.component).endpoint(found.endpoint)

    def client(self, service: Callable[..., T], **options: Unpack[handles.GivenOptions]) -> T:
        """A typed handle of a service class: its endpoints are called like the methods of an object.

        The caller awaits an `async def`, and iterates a generator with `async for`. Equal options give the same handle.

        - `timeout`: seconds that a call may take; None for the rest of the call that is being answered.
        - `metadata`: texts by name that travel with each call.
        - `instance`: the id of the one instance to call.
        - `pick`: the name of a picker; without one, the picker in use.
        - `wait`: seconds that a call waits for an instance to appear. 0.
        - `lane`: whose instances to call: `dev`, `hand` or `deployment/NAME`; without one, as the page on services says.

        A call raises `Unavailable` where no instance is there, `DeadlineExceeded` after `timeout`, `Disconnected` where
        its outcome is unknown, and what the service raised: declared exceptions as themselves, others as `RemoteError`.

        Raises:
            BadDeclaration: `service` is no service class, or an option is unknown.
        """
        return cast("T", self._handle(service, options, never_itself=False))

    def dependency(self, service: Callable[..., T], **options: Unpack[handles.GivenOptions]) -> T:
        """As `client`, for a service that the calling instance stands before: its own instance is never called."""
        return cast("T", self._handle(service, options, never_itself=True))

    def _handle(
        self, service: Callable[..., Any], options: handles.GivenOptions, *, never_itself: bool
    ) -> handles.ServiceHandle:
        spec, chosen = spec_of(service), handles.Options.of(options)
        skip = self.own_instance(spec.namespace, spec.name, never=never_itself)
        # by `repr`: metadata is a mapping, which has no hash
        key = (service, skip, *((name, repr(value)) for name, value in sorted(options.items())))
        if key not in self._handles:
            self._handles[key] = handles.ServiceHandle(self, spec, chosen, skip)
        handle: handles.ServiceHandle = self._handles[key]
        return handle

    def lanes(self, asked: str = "") -> offers.LaneChoice:
        """How the clients of this runtime choose among lanes; `asked` goes before the setting `lane`."""
        return offers.LaneChoice(asked or self.settings.text("lane"), self.host.options.lane)

    async def view(self, namespace: str, component: str) -> View:
        """The instances of a component. All callers share one view, which stays current until the runtime is closed."""
        key = (namespace, component)
        # the task, not the view: callers that come while it is opened get the same one
        if key not in self._views:
            opening = asyncio.ensure_future(self.discovery.view(namespace, component))
            self._views[key] = opening
            opening.add_done_callback(lambda done: self._viewed(key, done))
        # shielded: a caller that is cancelled must not cancel the opening for the others
        return await asyncio.shield(self._views[key])

    def _viewed(self, key: tuple[str, str], done: asyncio.Task[View]) -> None:
        # an opening that failed is not kept, or every later call would fail with it
        if done.cancelled() or done.exception() is not None:
            self._views.pop(key, None)

    @property
    def pool(self) -> pools.ConnectionPool:
        """The connections to instances, one for each, shared by every client of this runtime."""
        if self._pool is None:
            self._pool = pools.ConnectionPool(settings=self.settings)
        return self._pool

    @property
    def descriptions(self) -> described.Descriptions:
        """The descriptions of services, asked of their instances once per digest."""
        if self._descriptions is None:
            self._descriptions = described.Descriptions(self.pool)
        return self._descriptions

    def own_instance(self, namespace: str, component: str, *, never: bool = False) -> handles.OwnInstance | None:
        """The calling instance if it belongs to this component, else None; `never` where it must not be called."""
        # A service may call a component of its own name, as a router does that stands before its workers. Its clients
        # skip the instance that asks, or it would find itself.
        asks = _asking()
        hosted = self.host.components.get((namespace, component))
        if hosted is None or asks != (namespace, component):
            return None
        return handles.OwnInstance(hosted.instance_id, never)

    def stop(self) -> None:
        """Ask the services of this runtime to drain and end. Returns at once."""
        self.stopping.set()

    async def drain(self, grace: float | None = None) -> bool:
        """Leave discovery, refuse new calls, and finish running ones within `grace` seconds (None: the limit `drain`).

        Returns whether all of them ended in time.
        """
        return await self.host.drain(grace)

    async def close(self) -> None:
        """Release the records, listeners, connections and views. Safe to call twice."""
        self.stopping.set()
        # taken first: two closings at once must not join one thread twice
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            # it joins its thread, which must not hold this loop up
            await asyncio.to_thread(bridge.close)
        # before the connections to others: handlers that are cut may still be calling through them
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

    def bridge(self) -> bridges.Bridge[handles.CallingRuntime]:
        """What carries calls from code that cannot await. It is made at the first use, and again in a forked child.

        `Refused` where the discovery serves one event loop only.
        """
        if self._bridge is None or self._bridge.stayed_behind():
            self._bridge = bridges.Bridge(self.twin)
        return self._bridge

    def twin(self) -> DistributedRuntime:
        """A runtime for another event loop that sees the same instances.

        Raises:
            Refused: this discovery serves one event loop only, as `MemoryDiscovery` does.
        """
        reopened = getattr(self.discovery, "reopened", None)
        if reopened is None:
            raise Refused(
                f"{type(self.discovery).__name__} serves one event loop: calls from sync code need another",
                fix="Use `async for` or `await`.",
            )
        return DistributedRuntime(reopened(), limits=self.limits, options=LaunchOptions(lane=self.host.options.lane))


class Namespace:
    """The first part of an address: components of one name in two namespaces are two components."""

    def __init__(self, runtime: DistributedRuntime, name: str) -> None:
        self.runtime = runtime
        self.name = name

    def component(self, name: str) -> Component:
        """The component of that name; `BadDeclaration` (code `bad_name`) where the name breaks the naming rule."""
        return Component(self, check_name(name, "component"))

    def __repr__(self) -> str:
        return f"<namespace {self.name}>"


class Component:
    """The address of one service, `namespace.component`. Every instance of the service is registered under it."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        self.runtime = namespace.runtime
        self.namespace = namespace
        self.name = name

    @property
    def address(self) -> str:
        """`namespace.component`."""
        return f"{self.namespace.name}.{self.name}"

    @property
    def hosted(self) -> ServedComponent:
        """The component as this runtime serves it; the first look takes its instance id."""
        return self.runtime.host.component(self.namespace.name, self.name)

    async def create_service(self) -> None:
        """Take an instance id for this component here. Discovery lists the instance once it serves an endpoint."""
        self.hosted  # noqa: B018 - the instance id is taken here

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint of that name; `BadDeclaration` (code `bad_name`) unless it is a Python identifier."""
        return Endpoint(self, check_endpoint(name))

    async def description(self, timeout: float = PATIENCE, *, wait: float = 0.0) -> describe.Description:
        """The description that the newest instance gives of its service: endpoints, types, JSON Schemas.

        `timeout` is in seconds for the question, `wait` in seconds for the first instance to appear.

        Raises:
            Unavailable: no instance is there after `wait` seconds.
        """
        view = await self.runtime.view(self.namespace.name, self.name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await wait_for(view, bool)
        lane = self.runtime.lanes().of({instance.lane for instance in view.instances()}, self.name)
        if not (found := [instance for instance in view.instances() if instance.lane == lane]):
            raise Unavailable(f"no instance of {self.address} is there")
        return await self.runtime.descriptions.of(max(found, key=lambda instance: instance.since), timeout)

    async def add(self, spec: EndpointSpec, function: Callable[..., Any], around: Interceptor | None = None) -> None:
        """Answer calls to one more endpoint with `function`. Callers find it after `show()`.

        `around` intercepts each call. `Conflict` (code `already_served`) where the endpoint is served already.
        """
        await self._answer(spec, handler_of(function, spec), around)

    async def _answer(self, spec: EndpointSpec, handler: Handler, around: Interceptor | None) -> None:
        if around is not None:
            # an interceptor awaits the handler: a plain function moves to its thread inside of it, not around it
            handler, spec = around(off_the_loop(handler, spec)), msgspec.structs.replace(spec, threaded=False)
        await self.runtime.host.add(self.hosted, spec, handler)

    async def publish(self, **data: Any) -> None:
        """Put `data` into this instance's record, for pickers and callers to choose by. None removes a name.

        Values must have a JSON form. `Refused` where discovery cannot show the record now; it tries again by itself.
        """
        hosted = self.hosted
        hosted.data = {name: value for name, value in {**hosted.data, **data}.items() if value is not None}
        if self.runtime.host.is_shown(hosted):
            await self.show()

    async def show(self) -> None:
        """Write the record of this instance to discovery: from here on callers find its endpoints."""
        await self.runtime.host.show(self.hosted)

    def __repr__(self) -> str:
        return f"<component {self.address}>"


class Endpoint:
    """One operation of a component, at `namespace.component.endpoint`: serve it here, or make its client."""

    def __init__(self, component: Component, name: str) -> None:
        self.runtime = component.runtime
        self.component = component
        self.name = name

    @property
    def address(self) -> Address:
        """`namespace.component.endpoint`, as its three parts."""
        return Address(self.component.namespace.name, self.component.name, self.name)

    def client(self, **options: Unpack[handles.GivenOptions]) -> handles.EndpointClient:
        """A client of this endpoint, whose answers are not checked against a type. Awaiting it waits for an instance.

        The options are those of `DistributedRuntime.client`; `BadDeclaration` names one that there is not.
        """
        skip = self.runtime.own_instance(self.component.namespace.name, self.component.name)
        return handles.EndpointClient(self.runtime, self.address, None, handles.Options.of(options), skip)

    async def serve_endpoint(
        self,
        handler: Callable[..., Any],
        *,
        graceful_shutdown: bool = True,
        idempotent: bool = False,
        resumable: bool = False,
        metrics_labels: Iterable[tuple[str, str]] = (),
        health_check_payload: Mapping[str, Any] | None = None,
    ) -> None:
        """Serve `handler` at this endpoint until the runtime stops, then drain.

        - `handler`: a function or bound method; its signature says what it takes and whether it streams.
        - `graceful_shutdown`: False gives running calls no time at the end; True gives them the limit `drain`.
        - `idempotent`: running it twice does no harm, so that clients repeat a call that was lost.
        - `resumable`: the handler begins its stream behind `call.resume`, so that it goes on with another instance.
        - `metrics_labels`: pairs of name and value for the metrics of this endpoint.
        - `health_check_payload`: arguments by name. The runtime calls the handler with them at intervals of the limit
          `health`; while it fails to answer, callers are not sent here.

        Raises:
            BadDeclaration: the handler's signature cannot be served, or a label is no identifier.
            Conflict: this runtime serves the endpoint already (code `already_served`).
        """
        signatures.check(handler, self.name, method=False)
        spec = signatures.read(handler, self.name, method=False, idempotent=idempotent, resumable=resumable)
        if labels := dict(metrics_labels):
            if bad := [name for name in labels if not (name.isidentifier() and name.isascii())]:
                raise BadDeclaration(f"{self.address}: {bad[0]!r} is no name of a label: letters, digits and '_'")
            spec = msgspec.structs.replace(spec, facts={**spec.facts, "metrics_labels": labels})
        await self.component.add(spec, handler)
        hosted = self.component.hosted
        checking = None
        if health_check_payload is not None:
            check = health_check.HealthCheck(
                self.runtime.host, self.runtime.pool, hosted, spec, dict(health_check_payload)
            )
            checking = asyncio.ensure_future(check.watch())
        try:
            await self.component.show()
            await self.runtime.stopping.wait()
            await self.runtime.drain(None if graceful_shutdown else 0.0)
        except asyncio.CancelledError:
            # only this endpoint ends: others of the component may be served by other tasks
            await self.runtime.host.remove(hosted, self.name)
            raise
        finally:
            if checking is not None:
                checking.cancel()

    async def hide(self) -> None:
        """Take the endpoint out of the record, so that no new caller finds it. Calls that come all the same are answered."""
        await self.runtime.host.tell(self.component.hosted, self.name, whether=False)

    async def show(self) -> None:
        """Put the endpoint back into the record after `hide()`."""
        await self.runtime.host.tell(self.component.hosted, self.name, whether=True)

    def __repr__(self) -> str:
        return f"<endpoint {self.address}>"


def _asking() -> tuple[str, str] | None:
    """The component that makes the call: the one whose call is being answered, else the one that start() runs."""
    call = CURRENT.get()
    if call is None or call.route.count(".") != 2:
        return INSIDE.get()
    namespace, component, _ = call.route.split(".")
    return namespace, component


def spec_of(service: Callable[..., Any]) -> ServiceSpec:
    """The spec of a decorated class: its endpoints, their types and options.

    Raises:
        BadDeclaration: the class has no `@service`, or an annotation cannot be resolved.
    """
    read = getattr(service, "__bema_spec__", None)
    if read is None:
        raise BadDeclaration(
            f"{getattr(service, '__qualname__', service)} is not a service: decorate it with @service(...)"
        )
    return cast("ServiceSpec", read())


def connect(discovery: Discovery | None = None) -> DistributedRuntime:
    """A runtime to call services with: `async with bema.connect() as runtime: ...`.

    `discovery` is where instances are looked up; without one, the discovery that the settings name.
    """
    return DistributedRuntime(discovery)

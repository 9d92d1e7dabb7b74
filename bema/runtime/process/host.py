"""What this process serves: its components, their records and leases, and the addresses they are reached at.

Law: listen, then serve, then show; at the end refuse, finish, take away. A record is never shown for what cannot be
called yet, and one process has one server however many components it serves. Where the launcher writes the record, it is
told whatever would have been written here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec

from bema.core.call import Call, Handler
from bema.core.clock import Clock, SystemClock
from bema.core.deferred import deferred
from bema.core.digest import digest_of
from bema.core.errors import BemaError, Conflict, NotFound
from bema.core.instance import HAND, EndpointInfo, Instance, State, info_of
from bema.core.naming import new_instance_id, show_instance_id
from bema.core.paths import socket_dir
from bema.core.redaction import hides
from bema.core.settings import Settings
from bema.core.spec import DESCRIBE, EndpointSpec, ServiceSpec
from bema.runtime import threads
from bema.runtime.discovery.discovery import Discovery, Lease
from bema.runtime.folders import prepare
from bema.runtime.process.watchdog import Watchdog
from bema.runtime.processes import own_namespace, own_start
from bema.runtime.rpc import call_log
from bema.runtime.rpc.admission import Admission
from bema.runtime.rpc.routes import RouteTable
from bema.runtime.rpc.server import Server
from bema.runtime.rpc.server_connection import ServerConnection

if TYPE_CHECKING:
    from bema.core import describe
else:  # schemas are for who asks
    describe = deferred("bema.core.describe")

_log = logging.getLogger("bema.hosting")


class LaunchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a launcher told this process about itself; nothing of it when it was started by hand."""

    instance: int | None = None
    deployment: str = ""
    version: str = ""
    lane: str = HAND
    token: str = ""
    listen_fd: int | None = None
    listen: str = ""
    registers: bool = True  # False: the launcher writes the record
    embedded: bool = False  # a part of another program, which has the signals and the terminal
    __repr__ = hides("token")


class ServedComponent:
    """One component as this process serves it: one instance, whose endpoints may grow."""

    def __init__(self, namespace: str, component: str, instance_id: int) -> None:
        self.namespace = namespace
        self.component = component
        self.instance_id = instance_id
        self.endpoints: dict[str, EndpointInfo] = {}
        self.about: ServiceSpec | None = None  # what its class says; without one, it is known by its endpoints
        self.specs: dict[str, EndpointSpec] = {}
        self.handlers: dict[str, Handler] = {}
        self._digested: tuple[ServiceSpec | None, tuple[str, ...], str] = (None, (), "")
        self._described: tuple[str, Future[bytes]] | None = None  # the digest, and the description that has it
        self.built_in: dict[str, tuple[EndpointSpec, Handler]] = {}  # that no record tells of, by name
        self.hidden: set[str] = set()  # endpoints that are answered and not told of
        self.failing: set[str] = set()  # endpoints whose health check went unanswered; "" for the service itself
        self.alive = True  # what the service says of itself
        self.admission: Admission | None = None  # what bounds its calls; without one the server's bounds do
        self.labels: dict[str, dict[str, str]] = {}  # by endpoint: what is added to its counters
        self.lease: Lease | None = None
        self.since = 0
        self.data: dict[str, Any] = {}

    def route(self, endpoint: str) -> str:
        """The address of one of its endpoints, `namespace.component.endpoint`."""
        return f"{self.namespace}.{self.component}.{endpoint}"

    def spec(self) -> ServiceSpec:
        """What it is told of now: what its class says, with the endpoints that are shown."""
        shown = tuple(spec for name, spec in tuple(self.specs.items()) if self._is_told_of(name))
        about = self.about or ServiceSpec(self.component, self.namespace)
        return msgspec.structs.replace(about, name=self.component, namespace=self.namespace, endpoints=shown)

    def _is_told_of(self, endpoint: str) -> bool:
        return endpoint in self.endpoints and endpoint not in self.hidden

    def digest(self) -> str:
        """Of its description; made anew when what is shown has changed."""
        key = (self.about, tuple(filter(self._is_told_of, tuple(self.specs))))
        if self._digested[:2] != key:
            self._digested = (*key, digest_of(self.spec()))
        return self._digested[2]

    async def described(self, call: Call) -> bytes:
        """The handler of the built-in endpoint: the description, made when it is first asked for, beside the event loop."""
        digest = self.digest()
        if self._described is None or self._described[0] != digest:
            spec = self.spec()
            self._described = digest, threads.THREADS.submit(lambda: describe.encode(describe.describe(spec)))
        return await asyncio.wrap_future(self._described[1])


class Host:
    """The serving half of a runtime."""

    def __init__(
        self, discovery: Discovery, options: LaunchOptions, settings: Settings, clock: Clock | None = None
    ) -> None:
        self.options = options
        self.limits = settings.limits
        self._settings = settings
        self.addresses: tuple[str, ...] = ()
        self.state = State.STARTING
        self.accepts: Callable[[asyncio.AbstractEventLoop, RouteTable[ServerConnection]], ServerConnection] = (
            ServerConnection
        )
        self.ready = True  # what the service says of itself
        self.stalled = False
        self.slots: int | None = None
        self.queue = 0
        self.shown: list[
            Callable[[ServedComponent], None]
        ] = []  # called when a component is shown, and when it changed
        self.reports: Callable[[ServedComponent, Instance], None] | None = (
            None  # to who writes the records; from any thread
        )
        self._reporting = threading.Lock()
        self._draining: asyncio.Task[bool] | None = None
        self._discovery = discovery
        self._clock = clock or SystemClock()
        self.components: dict[tuple[str, str], ServedComponent] = {}
        self._server: Server | None = None
        self._opening: asyncio.Task[Server] | None = None
        self._watch: Watchdog | None = None
        self._token = options.token or secrets.token_hex(16)

    def component(self, namespace: str, component: str) -> ServedComponent:
        """The component as it is or will be served here, claimed now: its instance id is known before it serves."""
        key = (namespace, component)
        if key not in self.components:
            # the launcher knows one instance, the first; a second component of the process has an
            # id of its own
            given = self.options.instance if not self.components else None
            self.components[key] = ServedComponent(namespace, component, new_instance_id() if given is None else given)
        return self.components[key]

    async def add(self, hosted: ServedComponent, spec: EndpointSpec, handler: Handler) -> None:
        """Answer calls to one more endpoint; the record does not tell of it before `show`."""
        if spec.name in hosted.endpoints:
            raise Conflict(f"{hosted.route(spec.name)} is served already", code="already_served")
        server = await self._listening(hosted)
        server.add(hosted.route(spec.name), handler, spec, hosted.admission)
        server.add_built_in(hosted.route(DESCRIBE.name), hosted.described, DESCRIBE)
        for built_in, answer in hosted.built_in.values():
            server.add_built_in(hosted.route(built_in.name), answer, built_in)
        hosted.specs[spec.name] = spec
        hosted.handlers[spec.name] = handler
        hosted.endpoints[spec.name] = info_of(spec)
        hosted.labels[spec.name] = dict(spec.facts.get("metrics_labels", ()))

    def add_built_in(self, hosted: ServedComponent, spec: EndpointSpec, handler: Handler) -> None:
        """Answer calls to an endpoint that no record tells of, without admission, as soon as any is served; the last one given does."""
        hosted.built_in[spec.name] = spec, handler
        if self._server is not None and hosted.endpoints:
            self._server.remove(hosted.route(spec.name))
            self._server.add_built_in(hosted.route(spec.name), handler, spec)

    async def remove(self, hosted: ServedComponent, endpoint: str) -> None:
        """Tell nobody of it any more, then stop answering."""
        if hosted.endpoints.pop(endpoint, None) is not None:
            await self.show(hosted)
            if self._server is not None:
                self._server.remove(hosted.route(endpoint))

    async def tell(self, hosted: ServedComponent, endpoint: str, *, whether: bool) -> None:
        """Show or hide an endpoint that is answered either way."""
        if endpoint not in hosted.endpoints:
            raise NotFound(f"{hosted.route(endpoint)} is not served here")
        if whether:
            hosted.hidden.discard(endpoint)
        else:
            hosted.hidden.add(endpoint)
        await self.show(hosted)

    @property
    def alive(self) -> bool:
        return all(hosted.alive for hosted in self.components.values())

    async def say_ready(self, ready: bool, hosted: ServedComponent | None = None) -> None:
        """Mark one component, or every one, as able to take calls or not."""
        was = self.ready, [set(each.failing) for each in self.components.values()]
        if hosted is None:
            self.ready = ready
        else:
            (hosted.failing.discard if ready else hosted.failing.add)("")
        if was != (self.ready, [each.failing for each in self.components.values()]):
            await self.refresh()

    async def refresh(self) -> None:
        """Write anew whatever is shown."""
        for hosted in tuple(self.components.values()):
            if hosted.lease is None:
                self._report(hosted)
                continue
            try:
                await hosted.lease.update(self.record(hosted))
            except BemaError as error:  # it shows what it showed until it can be written
                # a drain must go on without its record: who calls meanwhile is refused, and goes
                # elsewhere
                _log.warning("%s.%s: %s", hosted.namespace, hosted.component, error.message)

    def is_shown(self, hosted: ServedComponent) -> bool:
        """Whether there is a record of it, here or with the launcher."""
        return hosted.lease is not None if self.options.registers else hosted.since > 0

    async def show(self, hosted: ServedComponent) -> None:
        """Write the component's record as it is now."""
        # never back from DRAINING: what is shown again while it drains stays as it is
        if self.state is State.STARTING:
            self.state = State.SERVING
        # of the first time: a record that is written anew is no younger instance
        hosted.since = hosted.since or self._clock.now()
        if self.options.registers:
            if hosted.lease is not None:
                await hosted.lease.update(self.record(hosted))
            elif hosted.endpoints:
                hosted.lease = await self._discovery.register(self.record(hosted))
                self._keep_watch()
        elif self.reports is not None:
            self._report(hosted)
            self._keep_watch()
        for shown in tuple(self.shown):
            shown(hosted)

    def record(self, hosted: ServedComponent) -> Instance:
        return Instance(
            id=hosted.instance_id,
            namespace=hosted.namespace,
            component=hosted.component,
            endpoints=tuple(info for name, info in hosted.endpoints.items() if name not in hosted.hidden),
            addresses={"rpc": self.addresses},
            state=self.state,
            deployment=self.options.deployment,
            version=self.options.version,
            pid=os.getpid(),
            process_start=own_start(os.getpid()),
            host=socket.gethostname(),
            token=self._token,
            since=hosted.since,
            stalled=self.stalled,
            ready=self.ready and not hosted.failing,
            data=hosted.data,
            digest=hosted.digest(),
            lane=self.options.lane,
            pid_namespace=own_namespace(os.getpid()),
        )

    def _keep_watch(self) -> None:
        if self._watch is None:
            self._watch = Watchdog(self.limits.stalled, self._stalls, self._turns)

    def _stalls(self) -> None:
        """In the watching thread: tell the store or the launcher, which is all that can still be told."""
        self.stalled = True
        self.mark()

    def _turns(self) -> None:
        self.stalled = False
        self.mark()

    def mark(self) -> None:
        """Write anew whatever is shown, from any thread."""
        for hosted in tuple(self.components.values()):
            if (lease := hosted.lease) is not None:
                with contextlib.suppress(BemaError):  # a store that cannot be written shows what it showed
                    lease.mark(self.record(hosted))
            else:
                self._report(hosted)

    def _report(self, hosted: ServedComponent) -> None:
        """Tell the launcher; what was so last is told last, whichever thread it was in."""
        if self.reports is not None and not self.options.registers and self.is_shown(hosted):
            # built under the lock: an older picture must not be told after a newer one
            with self._reporting:
                self.reports(hosted, self.record(hosted))

    async def drain(self, grace: float | None = None) -> bool:
        """Leave discovery, refuse new calls, finish running ones. True when nothing had to be cut. Happens once."""
        # a second Stop joins the first: two drains would each take the grace
        if self._draining is None:
            # one drain for all who ask: several services of a runtime end by the same signal
            self._draining = asyncio.ensure_future(self._drain(self.limits.drain if grace is None else grace))
        return await asyncio.shield(self._draining)

    async def _drain(self, grace: float) -> bool:
        # shown before anything is refused: whoever reads it goes elsewhere and loses no call
        if self.state is State.SERVING:
            self.state = State.DRAINING
            await self.refresh()
        finished = True if self._server is None else await self._server.drain(grace)
        # after the last call: the record says DRAINING until then, and `bema ls` shows who still
        # works
        await self._release()
        return finished

    async def close(self) -> None:
        """Let go of everything at once. Safe to call twice."""
        self.state = State.GONE
        await self._release()
        if self._server is not None:
            await self._server.close()

    async def _release(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
        for hosted in self.components.values():
            lease, hosted.lease = hosted.lease, None
            if lease is not None:
                await lease.release()

    async def _listening(self, hosted: ServedComponent) -> Server:
        # two endpoints that are served at once would open two servers at one address
        if self._opening is None:
            # one task for all who come: two components that start together must not bind two
            # servers
            self._opening = asyncio.ensure_future(self._open(hosted))
        return await asyncio.shield(self._opening)

    async def _open(self, hosted: ServedComponent) -> Server:
        name = f"{hosted.namespace}.{hosted.component}"
        self._server = Server(
            self._token, name=name, settings=self._settings.but(self.limits), slots=self.slots, queue=self.queue
        )
        self._server.accepts = self.accepts
        self._server.log = call_log.opened(self._settings, self._server.came)
        self.addresses = tuple([await self._server.listen(where) for where in self._places(hosted)])
        return self._server

    def _places(self, hosted: ServedComponent) -> list[str | socket.socket]:
        if self.options.listen_fd is not None:
            return [socket.socket(fileno=self.options.listen_fd)]
        if self.options.listen:
            return [self.options.listen]
        if not hasattr(socket, "AF_UNIX"):
            return ["tcp:127.0.0.1:0"]
        folder = socket_dir()
        prepare(folder)
        # the best first: on one host a socket needs no port, and its folder is its user's alone
        return [f"unix:{folder / show_instance_id(hosted.instance_id)}.sock", "tcp:127.0.0.1:0"]

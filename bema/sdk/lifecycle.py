"""start(): the five steps in which a service runs, whether it was started by hand or by a launcher.

Laws: the steps are those of the one boot, each under its name, and the error names a step that fails. Discovery lists
nothing before the fifth step. The shutdown hooks run once, after the last call has ended.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from bema.core.deferred import deferred
from bema.core.errors import BadDeclaration, Refused
from bema.core.instance import DEPLOYED, HAND, info_of
from bema.core.naming import read_instance_id, show_instance_id
from bema.core.spec import EndpointSpec, ServiceSpec
from bema.runtime.distributed import INSIDE, DistributedRuntime
from bema.runtime.process.host import LaunchOptions, ServedComponent
from bema.runtime.rpc.admission import Admission
from bema.runtime.tasks import is_cancelled
from bema.sdk import spec
from bema.sdk.boot import Boot, Served, sentence
from bema.sdk.context import Context
from bema.sdk.extensions import extended
from bema.sdk.health import Health
from bema.wire.module.handshake import Announce, EndpointAnnounce, Init

if TYPE_CHECKING:
    from bema.sdk.status import launcher_report
else:  # of a process that was launched
    launcher_report = deferred("bema.sdk.status.launcher_report")

_log = logging.getLogger("bema.service")


async def start(cls: type[Any], runtime: DistributedRuntime | None = None) -> None:
    """Run the service class `cls` in this process until it is told to stop.

    A given runtime is used and left open; without one, the service makes and closes its own. Raises what a step raises,
    with a note that names the step; `BadDeclaration` for a class that is no service or is abstract.
    """
    async with ServiceBoot(spec.spec_of(cls), runtime) as life:
        with life.step("handshake"):  # 1: from the launcher, or a default
            await life.handshake()
        with life.step("context"):  # 2: discovery, transports, the place it is served at
            context = await life.context()
            life.succeed(cls, context)
        with life.step("construct"):  # 3: arguments by name or type
            service = context.construct(cls)
        with life.step("async_init"):  # 4: in order of definition
            await run_hooks(service, context.spec.hooks.init)
        with life.step("entrypoint"):  # 5: its own, or: serve every endpoint, announce, drain on Stop
            await life.live(ServedService(service, context))


def serve(cls: type[Any], runtime: DistributedRuntime | None = None) -> Coroutine[Any, Any, None]:
    """Run a service class until it is told to stop: `asyncio.run(bema.serve(Worker))`.

    It does what `Worker.start()` does, which type checkers cannot see. A given runtime is used and left open.
    `BadDeclaration` at once where `cls` is no service class.
    """
    spec.mark_of(cls)
    return start(cls, runtime)


class ServiceBoot(Boot):
    """The boot of one service, in a runtime that was given or in one of its own."""

    def __init__(self, said: ServiceSpec, runtime: DistributedRuntime | None) -> None:
        embedded = runtime is not None and runtime.host.options.embedded
        super().__init__(said.address, embedded=embedded, shared=runtime is not None)
        self._spec = said
        self._runtime = runtime
        self._cls: type[Any] | None = None

    async def __aenter__(self) -> Self:
        if self._spec.abstract:
            raise BadDeclaration(f"{self._spec.address} is abstract: start a service that implements it")
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        ended = await super().__aexit__(kind, error, trace)
        if isinstance(error, Refused) and self.channel is None and not self.shared:
            raise SystemExit(sentence(error)) from error  # started by hand: our frames tell the user nothing
        return ended

    async def context(self) -> Context:
        """Open the runtime and the extensions, and make the context that the constructor may ask for."""
        runtime = self._runtime
        if runtime is None:
            runtime = DistributedRuntime(options=_options(self.init), limits=self.limits)
            self.opened.push_async_callback(runtime.close)
        self.limits, self.stopping = runtime.limits, runtime.stopping
        # the constructor and the hooks run in this context, and so do the tasks that they start
        self.opened.callback(INSIDE.reset, INSIDE.set((self._spec.namespace, self._spec.name)))
        context = Context(runtime, self._spec, self.init, self.operations)
        if self.status is not None:
            self.status.watch(self._spec, runtime.host)
        hosted = context.component.hosted
        # before the first endpoint is added: a route is complete from the beginning
        hosted.admission = _admission(self._spec, context.settings)
        hosted.about = self._spec
        if self.channel is not None and launcher_report.FEATURE in (self.init.features or ()):
            runtime.host.reports = launcher_report.Reporter(self.channel, hosted)
        self._tell_once(context, hosted)
        await self.opened.enter_async_context(extended(context))
        return context

    def succeed(self, cls: type[Any], context: Context) -> None:
        """Once this one is shown, end what serves an earlier definition of the class: a notebook's cell was run again."""
        # what a function makes is meant to differ; on a given runtime a second of the name is refused
        if self.shared or "<locals>" in cls.__qualname__:
            return
        mine = context.component.hosted
        self._cls = cls
        name = cls.__module__, cls.__qualname__, self._spec.address
        host = context.runtime.host

        def succeed(hosted: ServedComponent) -> None:
            if hosted is mine and hosted.endpoints:
                host.shown.remove(succeed)
                before, _SERVING[name] = _SERVING.get(name), self
                self.opened.callback(_left, name, self)
                if before is not None and before._cls is not cls:
                    before.stopping.set()

        host.shown.append(succeed)

    def _tell_once(self, context: Context, mine: ServedComponent) -> None:
        host = context.runtime.host

        def tell(hosted: ServedComponent) -> None:
            if hosted is mine and hosted.endpoints:
                host.shown.remove(tell)
                self.announce(_announcement(context), ready_text(context) if host.options.registers else "")

        host.shown.append(tell)


_SERVING: dict[tuple[str, str, str], ServiceBoot] = {}
"""What this process serves by itself, by module and name of the class and its address."""


def _left(name: tuple[str, str, str], boot: ServiceBoot) -> None:
    if _SERVING.get(name) is boot:
        del _SERVING[name]


class ServedService(Served):
    """A service object with its context: how the boot serves, watches, drains and closes it."""

    def __init__(self, service: Any, context: Context) -> None:
        self._service = service
        self._context = context

    async def serve(self) -> None:
        await entrypoint_of(self._service, self._context)()

    async def watch(self) -> None:
        """Ask the health hooks for as long as the service runs; `Failed` when it is not alive."""
        await Health(self._service, self._context.spec, self._context.runtime.host).watch()
        await super().watch()

    async def drain(self, grace: float) -> bool:
        return await self._context.runtime.drain(grace)

    async def close(self) -> None:
        for name in self._context.spec.hooks.shutdown:
            try:
                await run_hooks(self._service, (name,))
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) or is_cancelled():
                    raise
                _log.exception("%s: the shutdown hook %s failed", self._context.spec.address, name)


def entrypoint_of(service: Any, context: Context) -> Callable[[], Awaitable[None]]:
    """The service's own entrypoint with the arguments that it asks for, else the default `serve_endpoints`."""
    own = context.spec.hooks.entrypoint
    if own is None:
        return lambda: serve_endpoints(service, context)
    function = getattr(service, own)
    return lambda: function(**context.arguments(function))


async def serve_endpoints(service: Any, context: Context) -> None:
    """The default entrypoint: serve every endpoint, list them once the service is ready, and wait until it stops."""
    if not context.spec.endpoints:
        _log.warning(
            "%s has no endpoints, so nobody can call it: mark its methods with @endpoint()", context.spec.address
        )
    for declared in context.spec.endpoints:
        await context.component.add(declared, getattr(service, declared.attribute), context.around(declared.name))
    # before it is shown: no caller meets an instance that is still loading
    await Health(service, context.spec, context.runtime.host).until_ready()
    await context.component.show()
    await context.runtime.stopping.wait()


async def run_hooks(service: Any, names: tuple[str, ...]) -> None:
    """Call the hooks one after the other and await those that are `async def`; raises what the first failing one raises."""
    for name in names:
        answer = getattr(service, name)()
        if inspect.isawaitable(answer):
            await answer


def _options(init: Init) -> LaunchOptions:
    return LaunchOptions(
        instance=None if init.instance is None else read_instance_id(init.instance),
        deployment=init.deployment or "",
        version=init.version or "",
        lane=_lane(init),
        token=init.auth_token or "",
        listen_fd=init.listen_fd,
        registers=init.lease_fd is None and init.registers is not False,
    )


def _lane(init: Init) -> str:
    if init.deployment is not None:
        return f"{DEPLOYED}{init.name or init.deployment}"
    return str((init.settings or {}).get("lane", HAND))


def _admission(said: ServiceSpec, told: dict[str, Any]) -> Admission | None:
    """How many calls run and wait at once. The launcher's word goes before the class's; None where neither bounds them."""
    slots = told.get("slots", said.slots)
    return None if slots is None else Admission(slots, told.get("queue", said.queue))


def _announcement(context: Context) -> Announce:
    record = context.runtime.host.record(context.component.hosted)
    return Announce(
        listen=context.init.listen,
        endpoints=[EndpointAnnounce(f"/{info.name}", ["POST"]) for info in record.endpoints],
        instance=record.label,
        kind="service",
        namespace=record.namespace,
        name=record.component,
        addresses={protocol: list(addresses) for protocol, addresses in record.addresses.items()},
        operations=list(record.endpoints),
        digest=record.digest or None,
    )


def ready_text(context: Context) -> str:
    """What a terminal shows when the service is ready: its address, how to call it, how to stop it."""
    hosted, address = context.component.hosted, context.component.address
    lines = [f"{address} is ready: instance {show_instance_id(hosted.instance_id)}"]
    lines += [f"  at       {place}" for place in context.runtime.host.addresses]
    lines += [f"  call it  {_example(address, spec)}" for spec in context.spec.endpoints[:3]]
    return "\n".join([*lines, "  stop it  Ctrl-C", ""])


def _example(address: str, spec: EndpointSpec) -> str:
    names = info_of(spec).fields or tuple(parameter.name for parameter in spec.parameters if parameter.required)
    streams = " --stream" if spec.shape.streams_out else ""
    return " ".join(["bema call", f"{address}.{spec.name}", *(f"{name}=..." for name in names)]) + streams

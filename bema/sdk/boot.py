"""The life of one service in its process: what the steps of start() need, and the end that follows them.

Law: asked to stop, it leaves discovery, refuses what is new, finishes what runs, calls the shutdown hooks once, and the
process exits 0. Asked before it lived, it ends where it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bema.core import settings
from bema.core.errors import BadDeclaration, Refused
from bema.core.instance import info_of
from bema.core.naming import read_instance_id, show_instance_id
from bema.core.spec import EndpointSpec, ServiceSpec
from bema.runtime import forks
from bema.runtime.distributed import INSIDE, DistributedRuntime
from bema.runtime.process import channel
from bema.runtime.process.channel import Channel
from bema.runtime.process.host import LaunchOptions, ServedComponent
from bema.runtime.rpc.admission import Admission
from bema.sdk import spec
from bema.sdk.context import Context
from bema.sdk.health import Health
from bema.sdk.signals import Signals
from bema.sdk.status.launcher_report import FEATURE, Reporter
from bema.wire.module.handshake import FEATURES, Announce, EndpointAnnounce, Init, Stop, agree, default_init

if TYPE_CHECKING:
    from bema.sdk.status.server import StatusServer

LAST_WORDS = 1.0  # what an entrypoint has, after the drain, to come to its own end

_log = logging.getLogger("bema.service")


class Boot:
    def __init__(self, cls: type[Any], runtime: DistributedRuntime | None) -> None:
        self._spec = spec.spec_of(cls)
        self._given = runtime
        self._runtime = runtime
        self._channel: Channel | None = None
        self._task = asyncio.current_task()
        self._lives = False
        self._inside: Token[tuple[str, str] | None] | None = None
        self._asked_to_end = False
        self._drain: float | None = None  # what the launcher said; else the limit
        self._phases: dict[str, int] = {}
        self._status: StatusServer | None = None
        self._embedded = runtime is not None and runtime.hosting.standing.embedded
        self._signals = contextlib.nullcontext() if self._embedded else Signals(self._asked)

    async def __aenter__(self) -> Boot:
        if self._spec.abstract:
            raise BadDeclaration(f"{self._spec.address} is abstract: start a service that implements it")
        self._signals.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            if self._runtime is not None and self._given is None:
                await self._runtime.close()
        finally:
            if self._status is not None:
                await self._status.left()
            if self._channel is not None:
                self._channel.close()
            self._signals.__exit__(kind, error, trace)
            if self._inside is not None:
                INSIDE.reset(self._inside)
        if isinstance(error, Refused) and self._given is None and self._channel is None:
            raise SystemExit(f"{error.code}: {error.message}\n  fix: {error.fix}") from error
        if isinstance(error, asyncio.CancelledError) and self._asked_to_end and self._task is not None:
            return self._task.uncancel() == 0
        return False

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Name the step in whatever fails in it, and keep how long it took. Who was asked to end takes no further one."""
        if self._asked_to_end:
            raise asyncio.CancelledError
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            error.add_note(f"{self._spec.address}: step {name!r} of start() failed")
            raise
        self._phases[name] = round((time.monotonic() - began) * 1000)

    async def handshake(self) -> Init:
        init = await self._told_first()
        if os.environ.get("BEMA_STATUS_PORT") and not self._embedded:
            # named here and imported only now: a start without it does not pay for it
            self._status = importlib.import_module("bema.sdk.status.server").opened()
        return init

    async def _told_first(self) -> Init:
        self._channel = await channel.inherited(settings.current().limits)
        if self._channel is None:
            return default_init(self._spec.address)
        self._channel.stop.add_done_callback(lambda stop: self._told(stop.result()))
        self._phases.update(self._channel.phases)
        init = await self._channel.init()
        agree(init.protocol)
        os.environ.update(init.env)
        if init.lease_fd is not None:
            os.set_inheritable(init.lease_fd, False)
            forks.close_in_children(init.lease_fd)
        if init.drain_ms is not None:
            self._drain = init.drain_ms / 1000
        return init

    def context(self, init: Init) -> Context:
        if self._runtime is None:
            limits = settings.current().limits.told(init.settings or {})
            self._runtime = DistributedRuntime(standing=_standing(init), limits=limits)
        self._inside = INSIDE.set((self._spec.namespace, self._spec.name))
        context = Context(self._runtime, self._spec, init)
        if self._status is not None:
            self._status.watch(self._spec, self._runtime.hosting)
        context.component.hosted.admission = _admission(self._spec, context.settings)
        context.component.hosted.about = self._spec
        mine, shown = context.component.hosted, self._runtime.hosting.shown
        if self._channel is not None and FEATURE in (init.features or ()):
            self._runtime.hosting.reports = Reporter(self._channel, mine)

        def tell(hosted: ServedComponent) -> None:
            if hosted is mine and hosted.endpoints:
                shown.remove(tell)
                self._ready(context)

        shown.append(tell)
        return context

    async def live(self, service: Any, entrypoint: Callable[[], Awaitable[None]]) -> None:
        """Run the entrypoint until it ends or is told to; then drain, then the shutdown hooks."""
        assert self._runtime is not None
        self._lives = True
        running = asyncio.ensure_future(entrypoint())
        stopping = asyncio.ensure_future(self._runtime.stopping.wait())
        watching = asyncio.ensure_future(self._watch(service))
        whole = True
        try:
            await asyncio.wait({running, stopping, watching}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done() or self._given is None:
                whole = await self._runtime.drain(self._drain)
            if not running.done() and stopping.done():
                await asyncio.wait({running}, timeout=LAST_WORDS)
        finally:
            stopping.cancel()
            watched = not watching.cancel()
            cut = running.cancel()
            await asyncio.wait({running, watching})
            await self._last_hooks(service)
        if watched:
            watching.result()
        if not cut:
            running.result()
        if not whole and self._given is None:
            raise SystemExit(f"{self._spec.address}: calls were cut, for they did not end within the grace (drain)")

    async def _watch(self, service: Any) -> None:
        """Ask after its health for as long as it lives; fails when it says that it does not."""
        assert self._runtime is not None
        await Health(service, self._spec, self._runtime.hosting).watch()
        await asyncio.Event().wait()

    async def _last_hooks(self, service: Any) -> None:
        for name in self._spec.hooks.shutdown:
            try:
                await run_hooks(service, (name,))
            except Exception:  # noqa: BLE001 - the end goes on; the others have things to put away too
                _log.exception("%s: the shutdown hook %s failed", self._spec.address, name)

    def _asked(self) -> None:
        if self._lives and self._runtime is not None:
            self._runtime.stop()
        elif self._task is not None and not self._asked_to_end:
            self._asked_to_end = True
            self._task.cancel()

    def _told(self, stop: Stop) -> None:
        if stop.deadline_ms is not None:
            self._drain = stop.deadline_ms / 1000
        self._asked()

    def _ready(self, context: Context) -> None:
        """It is listed: say so to who launched it, or to who started it by hand."""
        if self._channel is not None:
            self._channel.announce(_announcement(context, self._phases))
        elif (standing := context.runtime.hosting.standing).registers and not standing.embedded:
            with contextlib.suppress(OSError, AttributeError):  # a terminal that is gone, or none
                sys.stderr.write(ready_text(context))
                sys.stderr.flush()


async def run_hooks(service: Any, names: tuple[str, ...]) -> None:
    """Call the hooks one after the other, plain or `async def`."""
    for name in names:
        answer = getattr(service, name)()
        if inspect.isawaitable(answer):
            await answer


def _standing(init: Init) -> LaunchOptions:
    return LaunchOptions(
        instance=None if init.instance is None else read_instance_id(init.instance),
        deployment=init.deployment or "",
        version=init.version or "",
        token=init.auth_token or "",
        listen_fd=init.listen_fd,
        registers=init.lease_fd is None and init.registers is not False,
    )


def _admission(spec: ServiceSpec, told: dict[str, Any]) -> Admission | None:
    """How many calls run and wait at once, as the launcher says or the class; None where neither does."""
    slots = told.get("slots", spec.slots)
    return None if slots is None else Admission(slots, told.get("queue", spec.queue))


def _announcement(context: Context, phases: dict[str, int]) -> Announce:
    record = context.runtime.hosting.record(context.component.hosted)
    return Announce(
        listen=context.init.listen,
        endpoints=[EndpointAnnounce(f"/{info.name}", ["POST"]) for info in record.endpoints],
        instance=record.label,
        protocol=agree(context.init.protocol),
        features=None if context.init.features is None else [f for f in FEATURES if f in context.init.features],
        kind="service",
        namespace=record.namespace,
        name=record.component,
        addresses={protocol: list(addresses) for protocol, addresses in record.addresses.items()},
        operations=list(record.endpoints),
        phases=phases,
        digest=record.digest or None,
    )


def ready_text(context: Context) -> str:
    """What the first terminal shows: where it is, how to call it, how to end it."""
    hosted, address = context.component.hosted, context.component.address
    lines = [f"{address} is ready: instance {show_instance_id(hosted.instance_id)}"]
    lines += [f"  at       {place}" for place in context.runtime.hosting.addresses]
    lines += [f"  call it  {_example(address, spec)}" for spec in context.spec.endpoints[:3]]
    return "\n".join([*lines, "  stop it  Ctrl-C", ""])


def _example(address: str, spec: EndpointSpec) -> str:
    names = info_of(spec).fields or tuple(parameter.name for parameter in spec.parameters if parameter.required)
    streams = " --stream" if spec.shape.streams_out else ""
    return " ".join(["bema call", f"{address}.{spec.name}", *(f"{name}=..." for name in names)]) + streams

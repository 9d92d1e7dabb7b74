"""The extension `jobs`: endpoints of a service in this process that are durable or may be called later, with the file of their calls.

Laws: one process owns the calls of a component. By hand it is the service's own: it alone shows the durable endpoints in its record,
so callers find nobody else, and another process waits for the file. Deployed, it is the platform's, and each instance joins it as
a worker. An endpoint runs nothing before the service is made, and is put away before it is gone. What is not durable is answered by
each process as ever; the owner alone makes its later calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, cast

from bema.core import durable
from bema.core.call import Call, Handler, Interceptor, Unary
from bema.core.errors import BemaError, Disconnected, Invalid, Refused, Unavailable
from bema.core.naming import is_call_id, new_call_id
from bema.core.spec import EndpointSpec, ServiceSpec, Shape
from bema.jobs.admission import group_of
from bema.jobs.calls import CallRecord
from bema.jobs.engine import JobsEngine, JobsFactory
from bema.jobs.membership import Membership
from bema.jobs.operations import CallOperations, until_stopping
from bema.jobs.runner import Runner
from bema.jobs.schedule import Schedule
from bema.jobs.schedules import declared_by
from bema.jobs.single_step import in_one_step
from bema.jobs.worker import DurableEndpoint
from bema.runtime.rpc.server_call import ServerCall
from bema.runtime.tasks import Tasks, before
from bema.sdk.context import Context
from bema.sdk.extensions import Bound
from bema.sdk.on_demand import kept_name

logger = logging.getLogger("bema.jobs")

_EVERY: Final = 0.25
"""Seconds between two looks at whether the owner of the calls has gone. Its death frees the lock at once."""


class JobsExtension:
    """Opened for a service that has durable endpoints or schedules, or of whose endpoints one was called later."""

    _context: Context
    _component: str
    _name: str  # of the file

    def __init__(self) -> None:
        self._calls: Runner | Membership | None = None
        self._handlers: dict[str, DurableEndpoint] = {}
        self._specs: dict[str, EndpointSpec] = {}
        self._beside: dict[str, EndpointSpec] = {}  # idempotent, and not durable by themselves
        self._declared: list[Schedule] = []
        self._operations: Unary | None = None  # once the calls are here
        self._why = ""  # they are not, where no other process has them
        self._tried = asyncio.Event()  # whether they can be had was seen once
        self._tasks = Tasks("jobs")

    async def open(self, context: Context, spec: ServiceSpec) -> Bound:
        self._context = context
        self._component = f"{spec.namespace}.{spec.name}"
        self._name = kept_name(context, durable.SETTING)
        self._specs = {endpoint.name: endpoint for endpoint in spec.endpoints if endpoint.durable}
        self._declared = [one for endpoint in spec.endpoints for one in declared_by(self._component, endpoint)]
        self._beside = {
            endpoint.name: endpoint
            for endpoint in spec.endpoints
            if endpoint.idempotent and not endpoint.durable and endpoint.shape is Shape.UNARY
        }
        host, hosted = context.runtime.host, context.component.hosted
        if self._specs and durable.SETTING not in context.settings:
            # until the file is ours nobody may be sent here
            hosted.hidden |= self._specs.keys()
            # said by each process of the component: so a door can tell what nobody answers yet from what is not there
            hosted.data["durable"] = sorted(self._specs)
        host.add_built_in(hosted, durable.SPEC, self._asked)
        return Bound(
            interceptors={
                **{name: self._around(endpoint) for name, endpoint in self._specs.items()},
                **{name: self._around_beside(endpoint) for name, endpoint in self._beside.items()},
            }
        )

    async def close(self) -> None:
        await self._tasks.stop()
        if self._calls is not None:
            await self._calls.close()

    def _around(self, spec: EndpointSpec) -> Interceptor:
        def wrap(handler: Handler) -> Handler:
            self._add(spec, cast("Unary", handler))
            return self._answer

        return wrap

    def _around_beside(self, spec: EndpointSpec) -> Interceptor:
        """Around an endpoint that is idempotent: its callers are answered as ever."""

        def wrap(handler: Handler) -> Handler:
            self._add(spec, in_one_step(spec, cast("Unary", handler)))
            return handler

        return wrap

    def _add(self, spec: EndpointSpec, handler: Unary) -> None:
        self._handlers[f"{self._component}.{spec.name}"] = DurableEndpoint(spec, handler)
        # the last one is added when the service was made: before that a replay would find half of it
        if len(self._handlers) == len(self._specs) + len(self._beside):
            work = self._join() if durable.SETTING in self._context.settings else self._own()
            self._tasks.start(work, "owner of the calls")

    # deployed

    def _join(self) -> Coroutine[Any, Any, None]:
        """At once, so that whoever finds this instance is answered: what is submitted waits for the service to start."""
        told = self._context.settings[durable.SETTING]
        membership = self._calls = Membership(
            told["address"], told["token"], self._name, self._version(), self._context.runtime.limits
        )
        membership.endpoints.update(self._handlers)
        membership.schedules = self._declared
        membership.begin()
        return self._serve(membership.answer)

    # by hand

    async def _own(self) -> None:
        """This process owns the calls, as soon as no other does."""
        engine = await self._taken()
        runner = self._calls = Runner(engine, version=self._version(), clock=self._context.runtime.clock)
        runner.endpoints.update(self._handlers)
        runner.failed = self._failed
        runner.schedules.declare(self._declared, self)
        self._context.runtime.quiet.append(runner.quiet)
        runner.begin()
        await self._serve(CallOperations(runner))

    async def _serve(self, operations: Unary) -> None:
        host, hosted = self._context.runtime.host, self._context.component.hosted
        self._operations = until_stopping(self._context.runtime.stopping, operations)
        self._tried.set()
        # last: whoever finds the endpoints must not be refused
        hosted.hidden -= self._specs.keys()
        hosted.data["jobs"] = self._name
        if host.is_shown(hosted):
            await self._context.component.show()

    async def _taken(self) -> JobsEngine:
        runtime = self._context.runtime
        settings, engine = runtime.settings.of(JobsFactory.group), "memory" if runtime.forgetful else ""
        told = False
        while True:
            try:
                return await JobsFactory.choose(engine).open(settings, self._name)
            except Refused as error:
                # a full disk or a newer file: said once, and tried again, for the other endpoints work
                self._why = "" if error.code == "state_held" else error.message
                if error.code != "state_held":
                    logger.error("the durable calls of %s cannot be opened: %s", self._name, error.message)
                elif not told:
                    logger.info("%s; this process takes over when that ends", error.message)
                told = True
            self._tried.set()
            await asyncio.sleep(_EVERY)

    def _version(self) -> str:
        """The deployed version, or by hand the digest of the file that the class is in."""
        if deployed := self._context.init.version:
            return deployed
        for handler in self._handlers.values():
            with contextlib.suppress(TypeError, OSError):
                path = inspect.getsourcefile(inspect.unwrap(handler.handler)) or ""
                return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
        return ""

    def _failed(self, error: BemaError) -> None:
        logger.critical("%s stops: its durable calls can no longer be written: %s", self._name, error.message)
        self._context.runtime.stop()

    # its calls

    async def _asked(self, call: Call) -> Any:
        """The handler of the built-in endpoint, in each process: who asks one that has not the calls goes to the next."""
        await self._tried.wait()
        if self._operations is None:
            raise self._elsewhere()
        return await self._operations(call)

    def _elsewhere(self) -> BemaError:
        why = self._why or "another process has them"
        return Unavailable(f"this process waits for the durable calls of {self._name}: {why}")

    async def _answer(self, call: Call) -> Any:
        calls = self._calls
        if calls is None:
            raise self._elsewhere()
        endpoint = calls.endpoint(call.route)
        wanted = call.wanted_id() if isinstance(call, ServerCall) else ""
        if wanted and not is_call_id(wanted):
            raise Invalid(f"the header {durable.HEADER} holds no id of a call: {wanted[:80]!r}")
        now = calls.clock.now()
        record = CallRecord(
            id=wanted or new_call_id(now),
            route=call.route,
            created=now,
            principal="" if call.principal is None else call.principal.subject,
            group=group_of(endpoint.spec, call.arguments),
            metadata=dict(call.metadata),
        )
        kept = await calls.submit(record, endpoint.encode_arguments(call.arguments))
        # the call goes on with the next owner, and its caller goes there, too
        return await before(self._context.runtime.stopping, calls.result(kept.id), lambda: self._stops(kept.id))

    def _stops(self, id: str) -> BemaError:
        return Disconnected(f"{self._name} stops; call {id} goes on with whoever has its calls next")

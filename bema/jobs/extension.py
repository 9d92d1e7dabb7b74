"""The extension `jobs`: durable endpoints of a service that runs in this process, with the file of their calls.

Law: one process owns the calls of a component. It alone shows the durable endpoints in its record, so callers find nobody else;
another process of the component waits for the file, and shows them when it has it. An endpoint runs nothing before the service
is made, and is put away before it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import logging
from pathlib import Path
from typing import Any, Final, cast

from bema.core import durable
from bema.core.call import Call, Handler, Interceptor, Unary
from bema.core.errors import BemaError, Disconnected, Invalid, Refused, Unavailable
from bema.core.instance import HAND
from bema.core.naming import is_call_id, new_call_id
from bema.core.spec import EndpointSpec, ServiceSpec
from bema.jobs.calls import CallRecord
from bema.jobs.engine import JobsEngine, JobsFactory
from bema.jobs.operations import CallOperations
from bema.jobs.runner import Runner
from bema.jobs.worker import DurableEndpoint
from bema.runtime.rpc.server_call import ServerCall
from bema.runtime.tasks import Tasks
from bema.sdk.context import Context
from bema.sdk.extensions import Bound

logger = logging.getLogger("bema.jobs")

_EVERY: Final = 0.25
"""Seconds between two looks at whether the owner of the calls has gone. Its death frees the lock at once."""


class JobsExtension:
    """Opened for a service that has durable endpoints."""

    _context: Context
    _component: str
    _name: str  # of the file

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._handlers: dict[str, DurableEndpoint] = {}
        self._specs: dict[str, EndpointSpec] = {}
        self._tasks = Tasks("jobs")

    async def open(self, context: Context, spec: ServiceSpec) -> Bound:
        self._context = context
        self._component = f"{spec.namespace}.{spec.name}"
        self._name = self._component + _suffix(context)
        self._specs = {endpoint.name: endpoint for endpoint in spec.endpoints if endpoint.durable}
        # until the file is ours nobody may be sent here
        context.component.hosted.hidden |= self._specs.keys()
        return Bound(interceptors={name: self._around(endpoint) for name, endpoint in self._specs.items()})

    async def close(self) -> None:
        await self._tasks.stop()
        if self._runner is not None:
            await self._runner.close()

    def _around(self, spec: EndpointSpec) -> Interceptor:
        def wrap(handler: Handler) -> Handler:
            self._handlers[f"{self._component}.{spec.name}"] = DurableEndpoint(spec, cast("Unary", handler))
            # the last one is added when the service was made: before that a replay would find half of it
            if len(self._handlers) == len(self._specs):
                self._tasks.start(self._own(), "owner of the calls")
            return self._answer

        return wrap

    # the file

    async def _own(self) -> None:
        engine = await self._taken()
        runner = self._runner = Runner(engine, version=self._version())
        runner.endpoints.update(self._handlers)
        runner.failed = self._failed
        runner.begin()
        host, hosted = self._context.runtime.host, self._context.component.hosted
        await host.add_built_in(hosted, durable.SPEC, CallOperations(runner))
        # after `begin`: whoever finds the endpoints must not be refused
        hosted.hidden -= self._specs.keys()
        hosted.data["jobs"] = self._name
        if host.is_shown(hosted):
            await self._context.component.show()

    async def _taken(self) -> JobsEngine:
        settings = self._context.runtime.settings.of(JobsFactory.group)
        told = False
        while True:
            try:
                return await JobsFactory.choose().open(settings, self._name)
            except Refused as error:
                # a full disk or a newer file: said once, and tried again, for the other endpoints work
                if error.code != "state_held":
                    logger.error("the durable calls of %s cannot be opened: %s", self._name, error.message)
                elif not told:
                    logger.info("%s; this process takes over when that ends", error.message)
                told = True
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

    async def _answer(self, call: Call) -> Any:
        runner = self._runner
        if runner is None:
            raise Unavailable(f"another process has the durable calls of {self._name}; this one waits for them")
        endpoint = runner.endpoint(call.route)
        wanted = call.wanted_id() if isinstance(call, ServerCall) else ""
        if wanted and not is_call_id(wanted):
            raise Invalid(f"the header {durable.HEADER} holds no id of a call: {wanted[:80]!r}")
        now = runner.clock.now()
        record = CallRecord(
            id=wanted or new_call_id(now),
            route=call.route,
            created=now,
            principal="" if call.principal is None else call.principal.subject,
            metadata=dict(call.metadata),
        )
        kept = await runner.submit(record, endpoint.encode_arguments(call.arguments))
        return await self._result(runner, kept.id)

    async def _result(self, runner: Runner, id: str) -> Any:
        """The result, or `Disconnected` when this process stops: the call goes on with the next owner, and so does its caller."""
        stopping = self._context.runtime.stopping
        ending = asyncio.ensure_future(stopping.wait())
        result = asyncio.ensure_future(runner.result(id))
        try:
            await asyncio.wait({ending, result}, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            raise Disconnected(f"{self._name} stops; call {id} goes on with whoever has its calls next")
        finally:
            ending.cancel()
            result.cancel()


def _suffix(context: Context) -> str:
    """What is deployed, run by hand and developed has calls of its own, as it has callers of its own."""
    options = context.runtime.host.options
    if options.deployment:
        return f"@{options.deployment}"
    return "" if options.lane == HAND else f"@{options.lane}"

"""A runner over an engine in memory, or over a file that its next owner opens, as the tests of durable calls use it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from bema.core.call import Unary
from bema.core.clock import SystemClock
from bema.core.durable import Queue
from bema.core.limits import DEFAULTS
from bema.core.naming import new_call_id
from bema.core.settings import PartSettings
from bema.jobs.calls import CallRecord, DurableState
from bema.jobs.engine import JobsEngine
from bema.jobs.ledger import Ledger
from bema.jobs.runner import Runner
from bema.jobs.worker import DurableEndpoint
from bema.runtime.rpc import signatures
from bema.runtime.rpc.adapter import handler_of
from bema.state.engine import StateEngine
from bema.state.sqlite import SqliteEngine


class Owner:
    """One process's worth of durable calls. Functions are given as `durable`, and called as `call`."""

    def __init__(self, engine: Ledger, state: StateEngine) -> None:
        self.state = state
        self.engine: JobsEngine = engine
        self.runner = Runner(engine, version="v1")

    def durable(self, function: Any) -> Any:
        """Add a function; or, given a `Queue`, what adds one that has this queue."""
        if isinstance(function, Queue):
            return functools.partial(self._add, queue=function)
        return self._add(function)

    def _add(self, function: Callable[..., Any], queue: Queue | None = None) -> Callable[..., Any]:
        spec = signatures.read(function, function.__name__, method=False)
        spec = msgspec.structs.replace(spec, facts={**spec.facts, "jobs": {"queue": queue}})
        self.runner.endpoints[f"t.t.{spec.name}"] = DurableEndpoint(spec, cast("Unary", handler_of(function, spec)))
        return function

    async def submit(
        self,
        name: str,
        *,
        id: str = "",
        key: str = "",
        due: int = 0,
        group: str = "",
        priority: int = 0,
        **arguments: Any,
    ) -> str:
        now = SystemClock().now()
        record = CallRecord(
            id=id or new_call_id(now),
            route=f"t.t.{name}",
            created=now,
            key=key,
            due=due,
            group=group,
            priority=priority,
        )
        endpoint = self.runner.endpoints[record.route]
        return (await self.runner.submit(record, endpoint.encode_arguments(arguments))).id

    async def call(self, name: str, **arguments: Any) -> Any:
        async with asyncio.timeout(10):
            return await self.runner.result(await self.submit(name, **arguments))

    async def until(self, id: str, *states: DurableState) -> CallRecord:
        """CallWait until a call is in one of these states."""
        async with asyncio.timeout(10):
            while (record := await self.engine.get(id)).state not in states:
                await asyncio.sleep(0.005)
        return record


@contextlib.asynccontextmanager
async def owning(folder: Path, **limits: Any) -> AsyncIterator[Owner]:
    """The owner of the calls in a folder; `begin` it when its functions are there."""
    settings = PartSettings({}, msgspec.structs.replace(DEFAULTS, **limits), folder)
    state = await SqliteEngine.open(settings, "jobs/t.t.sqlite")
    owner = Owner(await Ledger.on(state, settings.limits), state)
    try:
        yield owner
    finally:
        await owner.runner.close()

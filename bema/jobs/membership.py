"""Membership: a deployed instance among the workers of its component, with the platform's service as the owner of the calls.

Laws: the instance holds nothing of a call that outlives it; what it answers was written by the service. A connection that is lost
ends what it runs, since others may have it by then; it joins again, for as long as it lives. Callers are answered across all of it:
what was submitted under an id is the same call however often it is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, TypeVar

from bema.core.call import Call
from bema.core.errors import BemaError, Disconnected, NotFound, Unavailable
from bema.core.instance import Instance, info_of
from bema.core.limits import Limits
from bema.jobs.assignments import Assignment, CancelAsked, Joined, Offered, Task
from bema.jobs.awaited import Incoming
from bema.jobs.calls import CallRecord, CallWait, DurableState
from bema.jobs.engine import StaleClaim
from bema.jobs.journal import JournalEntry
from bema.jobs.operations import CallerOperations
from bema.jobs.schedule import Schedule
from bema.jobs.service import Jobs
from bema.jobs.worker import DurableEndpoint, Worker
from bema.runtime.alarms import AlarmClock, SystemAlarmClock
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.distributed import DistributedRuntime, spec_of
from bema.runtime.tasks import Tasks
from bema.wire.rpc import failures

logger = logging.getLogger("bema.jobs")

T = TypeVar("T")

PATIENCE = 30.0  # seconds that a caller waits for a service that is being started again
_AGAIN = 0.1  # seconds between two tries


class Membership:
    """One instance's. `joined` is set while it is a worker; `address` and `token` are where the service listens."""

    def __init__(self, address: str, token: str, name: str, version: str, limits: Limits) -> None:
        self.clock: AlarmClock = SystemAlarmClock()
        self.joined = asyncio.Event()
        discovery = MemoryDiscovery()
        spec = spec_of(Jobs)
        discovery.put(
            Instance(
                id=1,
                namespace=spec.namespace,
                component=spec.name,
                endpoints=tuple(map(info_of, spec.endpoints)),
                addresses={"rpc": (address,)},
                token=token,
            )
        )
        self._runtime = DistributedRuntime(discovery, limits=limits)
        self._jobs = self._runtime.client(Jobs, timeout=None)
        self._name = name
        self._worker = Worker(self, version)
        self._session = 0
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._offers: dict[str, list[Incoming]] = {}  # of calls that are about to run
        self._operations = CallerOperations(self)
        self.schedules: list[Schedule] = []  # that this instance declares
        self._tasks = Tasks("membership")

    @property
    def endpoints(self) -> dict[str, DurableEndpoint]:
        """Those that this instance runs, by route."""
        return self._worker.endpoints

    def endpoint(self, route: str) -> DurableEndpoint:
        """The endpoint of a route; `NotFound`."""
        return self._worker.endpoint(route)

    def begin(self) -> None:
        """Join, and take what is given. Give it every endpoint before."""
        self._tasks.start(self._belong(), "worker of durable calls")

    async def close(self) -> None:
        """Put away what runs and leave; others take it over."""
        self._worker.closing = True
        await self._tasks.stop()
        await self._runtime.close()

    # the worker

    async def _belong(self) -> None:
        told = False
        while True:
            try:
                routes = list(self.endpoints)
                queues = {route: queue for route in routes if (queue := self._worker.queue_of(route)) is not None}
                async for task in self._jobs.work(self._name, self._worker.version, routes, queues, self.schedules):
                    self._take(task)
                    told = False
            except BemaError as error:
                # the service is being started, or was killed: said once
                if not told:
                    logger.warning("the durable calls of %s: %s; joining again", self._name, error.message)
                told = True
            finally:
                await self._put_away()
            await asyncio.sleep(_AGAIN)

    async def _put_away(self) -> None:
        self.joined.clear()
        runs, self._runs = [*self._runs.values()], {}
        for run in runs:
            run.cancel()
        if runs:
            await asyncio.wait(runs)
        self._offers.clear()

    def _take(self, task: Task) -> None:
        if isinstance(task, Joined):
            self._session = task.session
            self.joined.set()
            self._tasks.start(self._renew(task), "lease of durable calls")
        elif isinstance(task, Assignment):
            id = task.record.id
            self._offers[id] = []
            for offered in task.offers:
                self._offered(offered)
            self._runs[id] = self._tasks.start(self._run(task, self._session), f"call {id}")
        elif isinstance(task, Offered):
            self._offered(task)
        elif isinstance(task, CancelAsked) and not self._worker.cancel(task.call):
            logger.warning("call %s: its end was asked for when it was over", task.call)

    def _offered(self, task: Offered) -> None:
        offer = Incoming(task.kind, task.name, task.payload, place=task.place, key=task.key, number=task.number)
        session = self._session
        offer.taken.add_done_callback(lambda taken: self._told(taken, session, task.number))
        if not self._worker.offer(task.call, offer) and task.call in self._offers:
            self._offers[task.call].append(offer)

    def _told(self, taken: asyncio.Future[None], session: int, number: int) -> None:
        # that it was taken is told with the entry that it makes
        if not taken.cancelled() and (error := taken.exception()) is not None:
            self._tasks.start(self._quietly(self._jobs.refuse(session, number, failures.pack_failure(error))))

    async def _renew(self, joined: Joined) -> None:
        while self._session == joined.session and self.joined.is_set():
            await asyncio.sleep(joined.lease / 3)
            await self._quietly(self._jobs.renew(joined.session))

    async def _run(self, assignment: Assignment, session: int) -> None:
        id, failure = assignment.record.id, b""
        offers = self._offers[id]
        try:
            await self._worker.run(assignment, offers)
        except BemaError as error:
            failure = failures.pack_failure(error)
        finally:
            if self._runs.get(id) is asyncio.current_task():
                del self._runs[id], self._offers[id]
        seen = [offer.number for offer in offers if offer.seen and offer.number]
        await self._quietly(self._jobs.over(session, id, seen, failure))

    async def _quietly(self, asked: Awaitable[Any]) -> None:
        """What is lost with the connection needs no second word: the session ends with it."""
        with contextlib.suppress(BemaError):
            await asked

    # the desk of its runs

    async def complete(self, record: CallRecord, entry: JournalEntry, offer: Incoming | None) -> None:
        key, number = ("", 0) if offer is None else (offer.key, offer.number)
        await self._written(self._jobs.complete(self._name, record.id, record.fence, entry, self._session, key, number))

    async def suspend(
        self,
        record: CallRecord,
        state: DurableState,
        *,
        waits: tuple[CallWait, ...] | None = None,
        due: int = 0,
        code: str = "",
        why: str = "",
    ) -> None:
        told = None if waits is None else list(waits)
        await self._written(self._jobs.suspend(self._name, record, state, told, due, code, why))

    async def end(self, record: CallRecord, state: DurableState, payload: bytes, code: str = "", why: str = "") -> None:
        await self._written(self._jobs.end(self._name, record, state, payload, code, why))

    async def _written(self, asked: Awaitable[None]) -> None:
        try:
            await asked
        except BemaError as error:
            if error.code == StaleClaim.code or isinstance(error, NotFound):
                raise StaleClaim(error.message) from error
            raise

    # callers

    async def submit(self, record: CallRecord, arguments: bytes) -> CallRecord:
        """Keep a call; it is one call however often it is submitted."""
        return await self._patiently(lambda: self._jobs.submit(self._name, record, arguments))

    async def outcome(self, id: str) -> tuple[CallRecord, bytes]:
        """Wait for the end of a call, across services that are killed and started again."""
        return await self._patiently(lambda: self._jobs.outcome(self._name, id))

    async def result(self, id: str) -> Any:
        """Its result, or its failure raised."""
        record, payload = await self.outcome(id)
        endpoint = self.endpoint(record.route)
        if record.state is DurableState.DONE:
            return endpoint.decode(payload)
        raise failures.rebuild(failures.read_failure(payload), endpoint.known)

    async def answer(self, call: Call) -> Any:
        """The handler of the built-in endpoint: what people ask of the calls of this component."""
        operation: str = call.arguments["operation"]
        arguments: Mapping[str, Any] = call.arguments.get("arguments", {})
        if self._operations.has(operation):
            return await self._operations(call)
        # before, the service may not have heard of these calls; who asks has a time of his own
        await self.joined.wait()
        return await self._jobs.operate(self._name, operation, dict(arguments))

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        until = monotonic() + PATIENCE
        while True:
            began = monotonic()
            try:
                return await ask()
            except (Unavailable, Disconnected):
                # counted anew where it was answered for long: the service stood meanwhile
                until = until if monotonic() - began < PATIENCE else monotonic() + PATIENCE
                if monotonic() >= until:
                    raise
            await asyncio.sleep(_AGAIN)

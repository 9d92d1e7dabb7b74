"""Worker: runs the durable calls that were claimed for it, in the process that has their handlers.

Laws: a worker holds nothing that outlives it. Each result goes to the desk of whoever owns the calls before the handler gets it,
under the fence of the claim; a desk that says the claim is stale ends the run. An execution that is put away leaves what came for
it and was not taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, Protocol

from bema.core.call import Unary
from bema.core.durable import Queue
from bema.core.errors import Invalid, NotFound, TooLarge
from bema.core.spec import EndpointSpec
from bema.jobs.admission import queue_of
from bema.jobs.assignments import Assignment
from bema.jobs.awaited import Incoming
from bema.jobs.calls import CallRecord, CallWait, DurableState
from bema.jobs.durable_call import DurableCall
from bema.jobs.execution import Execution, HandlerFailed, Paused, Suspended
from bema.jobs.journal import Journal, JournalEntry
from bema.runtime.alarms import AlarmClock
from bema.runtime.tasks import is_cancelled
from bema.wire.rpc import failures
from bema.wire.values import codecs

logger = logging.getLogger("bema.jobs")


class DurableEndpoint:
    """One endpoint whose calls are written down: its handler and its codecs."""

    def __init__(self, spec: EndpointSpec, handler: Unary) -> None:
        self.spec = spec
        self.handler = handler
        self.encode_arguments = codecs.arguments_encoder(spec.parameters)
        self.decode_arguments = codecs.arguments_decoder(spec.parameters)
        self.encode = codecs.encoder(spec.returns)
        self.decode = codecs.decoder(spec.returns)
        self.known = failures.declared(spec.facts.get("raises", ()))


class Desk(Protocol):
    """Where a worker hands in what came of a run. Each method raises `StaleClaim`, or what the engine raises."""

    clock: AlarmClock

    def complete(self, record: CallRecord, entry: JournalEntry, offer: Incoming | None) -> Awaitable[None]:
        """Write an entry, and that a signal was taken."""

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
        """Let go of the claim: the call waits for `waits`, or is paused and `why` says why."""

    async def end(self, record: CallRecord, state: DurableState, payload: bytes, code: str = "", why: str = "") -> None:
        """Write the end, with the encoded result or failure."""


class CallWorker(Protocol):
    """A worker as the owner of the calls sees it, here or in another process."""

    version: str

    def serves(self, record: CallRecord) -> bool:
        """Whether it has the handler of a call, in the version that the call began on."""

    def queue_of(self, route: str) -> Queue | None:
        """How the calls of a route take turns, where it says so."""

    async def run(self, assignment: Assignment, offers: list[Incoming]) -> None:
        """Run a claimed call to its end or to where it waits. `offers` came for it; at the end it holds what was not taken.

        `StaleClaim`, what the engine raised, or `Disconnected` where the worker was lost.
        """

    def offer(self, id: str, offer: Incoming) -> bool:
        """Give a call that runs what came for it. False where it does not run here."""

    def cancel(self, id: str) -> bool:
        """Ask a call that runs for its end. False where it does not run here."""


class Worker:
    """The worker of this process. `endpoints` are by route."""

    def __init__(self, desk: Desk, version: str = "") -> None:
        self.version = version
        self.endpoints: dict[str, DurableEndpoint] = {}
        self.closing = False
        self._desk = desk
        self._executions: dict[str, Execution] = {}

    def endpoint(self, route: str) -> DurableEndpoint:
        """The endpoint of a route; `NotFound`."""
        if (found := self.endpoints.get(route)) is None:
            raise NotFound(f"no durable endpoint {route!r} is served here")
        return found

    def serves(self, record: CallRecord) -> bool:
        # whatever version it began on: by hand a file is edited, and its calls go on with what it is now
        return record.route in self.endpoints

    def queue_of(self, route: str) -> Queue | None:
        return queue_of(self.endpoints[route].spec) if route in self.endpoints else None

    def offer(self, id: str, offer: Incoming) -> bool:
        if (execution := self._executions.get(id)) is None:
            return False
        execution.offer(offer)
        return True

    def cancel(self, id: str) -> bool:
        if (execution := self._executions.get(id)) is None:
            return False
        execution.cancel()
        return True

    def rests(self, id: str) -> bool:
        """Whether a call that runs here does nothing but wait for its time, for somebody outside, or for another call."""
        return (execution := self._executions.get(id)) is not None and execution.rests

    async def run(self, assignment: Assignment, offers: list[Incoming]) -> None:
        record, endpoint = assignment.record, self.endpoint(assignment.record.route)
        try:
            arguments = endpoint.decode_arguments(assignment.arguments)
        except codecs.UNFIT as error:
            # the code was changed since; a person decides, and the arguments are kept
            await self._pause(record, "history_mismatch", f"its arguments do not fit {record.route} any more: {error}")
            return
        execution = Execution(self._desk, record, Journal(assignment.entries), endpoint.known)
        self._executions[record.id] = execution
        for key, name, payload in assignment.signals:
            execution.offer(Incoming("signal", name, payload, key=key))
        known = {key for key, _, _ in assignment.signals}
        for offer in offers:
            if offer.key not in known:  # a signal that came a moment ago is not in the assignment yet
                execution.offer(offer)
        try:
            await self._run(endpoint, execution, arguments)
        except TooLarge as error:
            # tried again it would be as large: a person raises the limit, or mends the code
            await self._pause(record, error.code, error.message)
        finally:
            del self._executions[record.id]
            offers[:] = execution.left()

    async def _run(self, endpoint: DurableEndpoint, execution: Execution, arguments: dict[str, Any]) -> None:
        record, call = execution.record, DurableCall(execution, arguments)
        try:
            value = await execution.run(lambda: endpoint.handler(call), call)
            payload = _encoded(endpoint, value, record)
        except Suspended as suspended:
            # the earliest wakes it; what is not due then waits on in the next run
            dues = [wait.due for wait in suspended.waits if wait.due]
            state = DurableState.SLEEPING if dues else DurableState.ASKING
            await self._desk.suspend(record, state, waits=suspended.waits, due=min(dues, default=0))
        except Paused as paused:
            await self._pause(record, paused.code, paused.why)
        except asyncio.CancelledError:
            # put away in the middle of its end, it has more to undo: that is the next run's
            if not execution.cancelled or self.closing or is_cancelled():
                raise
            await self._desk.end(record, DurableState.CANCELLED, b"")
        except HandlerFailed as failed:
            error = failed.error
            said = f"{type(error).__name__}: {error}"
            packed = failures.pack_failure(error)
            await self._desk.end(record, DurableState.FAILED, packed, getattr(error, "code", ""), said)
        else:
            await self._desk.end(record, DurableState.DONE, payload)

    async def _pause(self, record: CallRecord, code: str, why: str) -> None:
        logger.warning("call %s is paused: %s", record.id, why)
        await self._desk.suspend(record, DurableState.PAUSED, code=code, why=why)


def _encoded(endpoint: DurableEndpoint, value: Any, record: CallRecord) -> bytes:
    try:
        return endpoint.encode(value)
    except (Invalid, *codecs.UNFIT) as error:
        raise HandlerFailed(codecs.bad_answer(error, f"the answer of {record.route}", value)) from error

"""Runner: runs the durable calls of one component in the process that owns them.

Laws: what is queued runs in the order of due time, then priority, then age, as room permits; a call that cannot run holds up no
other. A call that waits costs an entry in one heap, and no timer and no task of its own. When this process ends, what runs is
put away and goes on with the next owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bema.core.call import Unary
from bema.core.clock import Clock, SystemClock
from bema.core.errors import BemaError, Conflict, Invalid, NotFound
from bema.core.spec import EndpointSpec
from bema.jobs.calls import CallRecord, DurableState, moved
from bema.jobs.durable_call import DurableCall
from bema.jobs.engine import JobsEngine, StaleClaim
from bema.jobs.execution import Execution, HandlerFailed, Incoming, Paused, Suspended
from bema.jobs.journal import JournalEntry
from bema.runtime.tasks import Tasks
from bema.wire.rpc import failures
from bema.wire.values import codecs

logger = logging.getLogger("bema.jobs")

_AGAIN = 1.0  # seconds until a write that the machine did not allow is tried again
_SWEEP = 3600.0  # seconds between two looks at what is kept no longer


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


class Runner:
    """Give it every endpoint, then `begin`. `endpoints` are by route."""

    def __init__(self, engine: JobsEngine, *, version: str = "", clock: Clock | None = None) -> None:
        self.engine = engine
        self.clock = clock or SystemClock()
        self.endpoints: dict[str, DurableEndpoint] = {}
        self._version = version
        self._queue: list[tuple[int, int, str]] = []  # due, minus priority, id
        self._queued: dict[str, int] = {}  # the due time under which each stands in the queue
        self._running: dict[str, asyncio.Task[None]] = {}
        self._executions: dict[str, Execution] = {}
        self._groups: Counter[str] = Counter()
        self._offers: dict[str, list[Incoming]] = {}
        self._ends: dict[str, asyncio.Future[None]] = {}
        self._news = asyncio.Event()
        self._tasks = Tasks("durable calls")
        self._closing = False
        self.failed: Callable[[BemaError], None] = lambda error: None  # told when nothing more can be written

    def begin(self) -> None:
        """Run what the engine holds, and what comes."""
        for record in tuple(self.engine.live().values()):
            self._schedule(record)
        self._tasks.start(self._turns(), "durable calls")
        self._tasks.start(self._sweeps(), "sweep of durable calls")

    async def close(self) -> None:
        """Put away what runs, and let go of the engine."""
        self._closing = True
        await self._tasks.stop()
        for future in self._ends.values():
            future.cancel()
        await self.engine.close()

    # new calls and their ends

    async def submit(self, record: CallRecord, arguments: bytes) -> CallRecord:
        """Keep a call and run it when it is due; gives the one that was there where it is asked for again."""
        # committed when it returns: from here on the call is never lost
        kept = await self.engine.create(record, arguments)
        if kept.id == record.id and not kept.state.ended:
            self._schedule(kept)
        return kept

    async def result(self, id: str) -> Any:
        """CallWait for the end of a call: its result, or its failure raised. `Conflict` (call_paused) when it is paused."""
        while True:
            record = await self.engine.get(id)
            if record.state.ended:
                return await self._outcome(record)
            if record.state is DurableState.PAUSED:
                raise Conflict(f"call {id} is paused: {record.why}", code="call_paused", id=id)
            end = self._ends.setdefault(id, asyncio.get_running_loop().create_future())
            # many may wait for one call, and one that leaves takes nothing from the others
            await asyncio.shield(end)

    async def _outcome(self, record: CallRecord) -> Any:
        endpoint = self.endpoint(record.route)
        payload = await self.engine.outcome(record.id)
        if record.state is DurableState.DONE:
            return endpoint.decode(payload)
        if record.state is DurableState.CANCELLED:
            raise Conflict(f"call {record.id} was cancelled", code="call_cancelled", id=record.id)
        raise failures.rebuild(failures.read_failure(payload), endpoint.known)

    def endpoint(self, route: str) -> DurableEndpoint:
        if (found := self.endpoints.get(route)) is None:
            raise NotFound(f"no durable endpoint {route!r} is served here")
        return found

    def _tell(self, id: str) -> None:
        if (end := self._ends.pop(id, None)) is not None and not end.done():
            end.set_result(None)

    # what people ask for

    async def cancel(self, id: str) -> CallRecord:
        """Ask for the end of a call. One that runs or waits ends its handler first, and undoes what it recorded."""
        record = await self.engine.get(id)
        if record.state.ended:
            return record
        if record.state is DurableState.QUEUED and not record.attempts:
            record = await self.engine.change(id, lambda r: moved(r, DurableState.CANCELLED, ended=self.clock.now()))
            self._tell(id)
            return record
        record = await self.engine.change(id, lambda r: msgspec.structs.replace(r, cancelling=True))
        if (execution := self._executions.get(id)) is not None:
            execution.cancel()
        else:
            await self._queue_now(id)
        return record

    async def resume(self, id: str) -> CallRecord:
        """Run a paused call again, from its history on."""
        await self.engine.change(id, lambda r: moved(r, DurableState.QUEUED, code="", why="", due=0))
        return await self._queue_now(id)

    async def restart(self, id: str, order: int = 1) -> CallRecord:
        """Run a call again and forget what it recorded from that step on: one that is paused or has failed."""
        record = await self.engine.restart(id, order)
        self._schedule(record)
        return record

    async def answer(self, id: str, value: bytes, *, place: str = "") -> None:
        """Answer what a call asks. `Invalid` for an answer of another type; `Conflict` where it asks nothing."""
        await self._offered(id, Incoming("ask", "", value, place=place))

    async def signal(self, id: str, name: str, value: bytes) -> None:
        """Give a call a signal, which is kept until it waits for it."""
        key = await self.engine.signal(id, name, value)
        offer = Incoming("signal", name, value, key=key)
        offer.taken.add_done_callback(lambda future: future.exception())
        await self._offer(id, offer)

    async def _offered(self, id: str, offer: Incoming) -> None:
        await self._offer(id, offer)
        await offer.taken

    async def _offer(self, id: str, offer: Incoming) -> None:
        record = await self.engine.get(id)
        if record.state.ended or record.state is DurableState.PAUSED:
            raise Conflict(f"call {id} is {record.state}, and waits for nothing", code="bad_move", id=id)
        if (execution := self._executions.get(id)) is not None:
            execution.offer(offer)
        else:
            self._offers.setdefault(id, []).append(offer)
            await self._queue_now(id)

    async def _offer_again(self, id: str, offer: Incoming) -> None:
        try:
            await self._offer(id, offer)
        except BemaError as error:
            offer.refuse(error)

    async def _queue_now(self, id: str) -> CallRecord:
        record = await self.engine.get(id)
        if record.state in (DurableState.SLEEPING, DurableState.ASKING):
            # its waits stay: a sleep that is not over sleeps on
            record = await self.engine.change(id, lambda r: moved(r, DurableState.QUEUED, due=0))
        if record.state is DurableState.QUEUED:
            self._schedule(record, at=0)
        return record

    # the queue

    def _schedule(self, record: CallRecord, at: int | None = None) -> None:
        if record.state in (DurableState.PAUSED, DurableState.RUNNING) or record.state.ended:
            return
        if record.state is DurableState.ASKING and not record.due and at is None:
            return
        due = record.due if at is None else at
        self._queued[record.id] = due
        heapq.heappush(self._queue, (due, -record.priority, record.id))
        self._news.set()

    async def _turns(self) -> None:
        while True:
            self._news.clear()
            wait = self._start_due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()

    def _start_due(self) -> float | None:
        """Start what is due and has room; the seconds until the next is due, None where nothing is queued."""
        now, held = self.clock.now(), list[tuple[int, int, str]]()
        wait: float | None = None
        while self._queue:
            due, priority, id = self._queue[0]
            # an entry of a heap cannot be taken out of its middle: it is passed over when it comes up
            if self._queued.get(id) != due:  # it was queued anew for another time, or is gone
                heapq.heappop(self._queue)
                continue
            if due > now:
                # a clock may be set: look again at least once a minute
                wait = min((due - now) / 1_000_000, 60.0)
                break
            if len(self._running) >= self.engine.limits.jobs_running:
                break
            heapq.heappop(self._queue)
            # its group is busy, or nobody serves its route: those behind it are not to wait for it
            if not self._start(id):
                held.append((due, priority, id))
        for entry in held:
            heapq.heappush(self._queue, entry)
        return wait

    def _start(self, id: str) -> bool:
        record = self.engine.live().get(id)
        if record is None or id in self._running:
            self._queued.pop(id, None)
            return True
        # an endpoint may be gone from the code: its calls wait until it is back
        if record.route not in self.endpoints or (record.group and self._groups[record.group]):
            return False
        del self._queued[id]
        if record.group:
            self._groups[record.group] += 1
        self._running[id] = self._tasks.start(self._run(id, record.group), f"call {id}")
        return True

    async def _sweeps(self) -> None:
        while True:
            await self.engine.sweep(self.clock.now())
            await asyncio.sleep(_SWEEP)

    # one run

    async def _run(self, id: str, group: str) -> None:
        try:
            # the claim is a commit of its own: two runs of one call can never both write
            record = await self.engine.claim(id, self._version)
            try:
                await self._run_claimed(record)
            except StaleClaim:
                logger.warning("call %s: another claim took it over", id)
        except asyncio.CancelledError:
            raise
        except BemaError as error:
            await self._again(id, error)
        finally:
            del self._running[id]
            if group:
                self._groups[group] -= 1
            if not self._closing:
                self._after(id)

    async def _again(self, id: str, error: BemaError) -> None:
        """The engine could not write: nothing is lost, and the call is queued when it can. A failed disk ends the owner."""
        while error.code != "state_failed":
            logger.error("call %s: %s; trying again", id, error.message)
            await asyncio.sleep(_AGAIN)
            record = self.engine.live().get(id)
            if record is None or record.state is not DurableState.RUNNING:
                return
            try:
                await self.engine.suspend(id, record.fence, lambda r: moved(r, DurableState.QUEUED))
                return
            except BemaError as again:
                error = again
        logger.critical("the disk under the durable calls failed: %s", error.message)
        self.failed(error)

    def _after(self, id: str) -> None:
        record = self.engine.live().get(id)
        if record is not None and record.state is DurableState.RUNNING:
            record = None
        for offer in (offers := self._offers.pop(id, [])):
            if record is None or record.state is DurableState.PAUSED or offer.seen:
                offer.refuse(Conflict(f"call {id} asks nothing of that kind", code="bad_move", id=id))
        if record is not None:
            self._schedule(record)
        # what came while the run was being put away gets a run of its own
        for offer in offers:
            if not offer.taken.done() and not offer.seen:
                self._tasks.start(self._offer_again(id, offer), f"offer to {id}")
        if record is None or record.state is DurableState.PAUSED:
            self._tell(id)
        self._news.set()

    async def _run_claimed(self, record: CallRecord) -> None:
        endpoint, id = self.endpoint(record.route), record.id
        journal = await self.engine.journal(id)
        arguments = endpoint.decode_arguments(await self.engine.arguments(id))
        execution = self._executions[id] = Execution(self, record, journal, endpoint.known)
        for key, name, payload in await self.engine.signals(id):
            execution.offer(Incoming("signal", name, payload, key=key))
        for offer in self._offers.pop(id, []):
            if offer.kind != "signal":  # those are kept, and were read above
                execution.offer(offer)
        call = DurableCall(execution, arguments)
        try:
            value = await execution.run(lambda: endpoint.handler(call), call)
            await self._end(record, DurableState.DONE, _encoded(endpoint, value, record))
        except Suspended as suspended:
            await self._suspend(record, suspended)
        except Paused as paused:
            logger.warning("call %s is paused: %s", id, paused.why)
            why = {"code": paused.code, "why": paused.why}
            await self.engine.suspend(id, record.fence, lambda r: moved(r, DurableState.PAUSED, **why))
        except asyncio.CancelledError:
            if not execution.cancelled or self._closing:
                raise
            await self._end(record, DurableState.CANCELLED, b"")
        except HandlerFailed as failed:
            error = failed.error
            said = f"{type(error).__name__}: {error}"
            await self._end(record, DurableState.FAILED, failures.pack_failure(error), getattr(error, "code", ""), said)
        finally:
            del self._executions[id]
            self._offers.setdefault(id, []).extend(execution.left())

    async def _suspend(self, record: CallRecord, suspended: Suspended) -> None:
        # the earliest wakes it; what is not due then waits on in the next run
        dues = [wait.due for wait in suspended.waits if wait.due]
        state = DurableState.SLEEPING if dues else DurableState.ASKING
        await self.engine.suspend(
            record.id, record.fence, lambda r: moved(r, state, waits=suspended.waits, due=min(dues, default=0))
        )

    async def _end(
        self, record: CallRecord, state: DurableState, payload: bytes, code: str = "", why: str = ""
    ) -> None:
        await self.engine.end(record.id, record.fence, state, payload, code, why, self.clock.now())

    async def complete(self, record: CallRecord, entry: JournalEntry, offer: Incoming | None) -> None:
        await self.engine.complete(record.id, record.fence, entry, "" if offer is None else offer.key)

    def metadata(self) -> Mapping[str, int]:
        """For the status pages: how many run and how many wait."""
        return {"running": len(self._running), "live": len(self.engine.live())}


def _encoded(endpoint: DurableEndpoint, value: Any, record: CallRecord) -> bytes:
    try:
        return endpoint.encode(value)
    except (Invalid, *codecs.UNFIT) as error:
        raise codecs.bad_answer(error, f"the answer of {record.route}", value) from error

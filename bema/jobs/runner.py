"""Runner: the owner of durable calls decides which of them runs, when, and with which worker.

Laws: what is queued runs in the order of due time, then priority, then age, as room permits; a call that cannot run holds up no
other. A call that waits costs an entry in one heap, and no timer and no task of its own. When this process ends, what runs is
put away and goes on with the next owner; when a worker is lost, what it ran goes on with another. What was asked for is written to
its end, though who asked has left: who leaves takes nothing that others wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any

import msgspec

from bema.core.durable import Queue
from bema.core.errors import BemaError, Conflict, Disconnected, NotFound
from bema.jobs.admission import CallAdmission, Entry
from bema.jobs.assignments import Assignment
from bema.jobs.awaited import Incoming
from bema.jobs.calls import CallRecord, CallWait, DurableState, moved
from bema.jobs.engine import JobsEngine, StaleClaim
from bema.jobs.journal import JournalEntry
from bema.jobs.schedules import Schedules
from bema.jobs.worker import CallWorker, DurableEndpoint, Worker
from bema.runtime.alarms import AlarmClock, SystemAlarmClock, until
from bema.runtime.tasks import Tasks
from bema.wire.rpc import failures

logger = logging.getLogger("bema.jobs")

_AGAIN = 1.0  # seconds until a write that the machine did not allow is tried again
_SWEEP = 3_600_000_000  # microseconds between two looks at what is kept no longer

_ROOM, _TURN, _GONE = "room", "turn", "gone"  # why a call does not run, besides that no worker serves its route


class Runner:
    """Give it every endpoint of this process, or other workers, then `begin`."""

    def __init__(self, engine: JobsEngine, *, version: str = "", clock: AlarmClock | None = None) -> None:
        self.engine = engine
        self.clock = clock or SystemAlarmClock()
        self._here = Worker(self, version)
        self._workers: list[CallWorker] = [self._here]
        self._queue: list[Entry] = []
        self._queued: dict[str, int] = {}  # the due time under which each stands in the queue
        self._blocked: dict[str, list[Entry]] = {}  # by what they wait for: a worker of a route, or room
        self._running: dict[str, tuple[asyncio.Task[None], CallWorker]] = {}
        self._busy: Counter[CallWorker] = Counter()  # how many calls each worker was given
        self._admission = CallAdmission(self._queue_of)
        self.schedules = Schedules(engine, self.submit, self.clock)
        self._offers: dict[str, list[Incoming]] = {}
        self._handing: dict[str, set[asyncio.Task[None]]] = {}  # what workers elsewhere hand in of a call
        self._ends: dict[str, asyncio.Future[None]] = {}
        self._news = asyncio.Event()
        self._tasks = Tasks("durable calls")
        self._closing = False
        self.failed: Callable[[BemaError], None] = lambda error: None  # told when nothing more can be written

    @property
    def endpoints(self) -> dict[str, DurableEndpoint]:
        """Those of this process, by route."""
        return self._here.endpoints

    def begin(self) -> None:
        """Run what the engine holds, and what comes."""
        for record in tuple(self.engine.live().values()):
            self._schedule(record)
        self._tasks.start(self._turns(), "durable calls")
        self._tasks.start(self._sweeps(), "sweep of durable calls")
        self.schedules.begin()

    def join(self, worker: CallWorker) -> None:
        """Another worker is there."""
        self._workers.append(worker)
        self._release_all()

    def leave(self, worker: CallWorker) -> None:
        """A worker takes nothing more. What it runs it still may end."""
        self._workers.remove(worker)
        self._busy.pop(worker, None)

    async def close(self) -> None:
        """Put away what runs, and let go of the engine."""
        self._closing = self._here.closing = True
        await self.schedules.close()
        await self._tasks.stop()
        for future in self._ends.values():
            future.cancel()
        await self.engine.close()

    # new calls and their ends

    async def submit(self, record: CallRecord, arguments: bytes) -> CallRecord:
        """Keep a call and run it when it is due; gives the one that was there where it is asked for again."""
        # who leaves while it is written leaves a call that is kept, and has to run
        return await self._tasks.through(self._submit(record, arguments))

    async def _submit(self, record: CallRecord, arguments: bytes) -> CallRecord:
        # committed when it returns: from here on the call is never lost
        with self._ending_with_its_disk():
            kept = await self.engine.create(record, arguments)
        if kept.id == record.id and not kept.state.ended:
            self._schedule(kept)
        return kept

    @contextlib.contextmanager
    def _ending_with_its_disk(self) -> Iterator[None]:
        """Whoever meets it first, a failed disk ends the owner: it would refuse everybody, and the next one need not."""
        try:
            yield
        except BemaError as error:
            if error.code == "state_failed" and not self._closing:
                logger.critical("the disk under the durable calls failed: %s", error.message)
                self.failed(error)
            raise

    async def result(self, id: str) -> Any:
        """Wait for the end of a call: its result, or its failure raised. `Conflict` (call_paused) when it is paused."""
        record, payload = await self.outcome(id)
        endpoint = self.endpoint(record.route)
        if record.state is DurableState.DONE:
            return endpoint.decode(payload)
        raise failures.rebuild(failures.read_failure(payload), endpoint.known)

    async def outcome(self, id: str) -> tuple[CallRecord, bytes]:
        """Wait for the end of a call: its record, done or failed, and the encoded result or failure.

        `Conflict` where it is paused (call_paused) or was cancelled (call_cancelled).
        """
        while True:
            record = await self.engine.get(id)
            if record.state is DurableState.CANCELLED:
                raise Conflict(f"call {id} was cancelled", code="call_cancelled", id=id)
            if record.state.ended:
                with contextlib.suppress(NotFound):
                    return record, await self.engine.outcome(id)
                continue  # it was begun anew meanwhile, or is kept no longer
            if record.state is DurableState.PAUSED:
                raise Conflict(f"call {id} is paused: {record.why}", code="call_paused", id=id)
            end = self._ends.setdefault(id, asyncio.get_running_loop().create_future())
            # many may wait for one call, and one that leaves takes nothing from the others
            await asyncio.shield(end)

    def endpoint(self, route: str) -> DurableEndpoint:
        """The endpoint of a route in this process; `NotFound`."""
        return self._here.endpoint(route)

    def _tell(self, id: str) -> None:
        if (end := self._ends.pop(id, None)) is not None and not end.done():
            end.set_result(None)

    # what people ask for

    async def cancel(self, id: str) -> CallRecord:
        """Ask for the end of a call. One that runs or waits ends its handler first, and undoes what it recorded."""
        return await self._tasks.through(self._cancel(id))

    async def _cancel(self, id: str) -> CallRecord:
        record = await self.engine.get(id)
        if record.state.ended:
            return record
        if record.state is DurableState.QUEUED and not record.attempts:
            record = await self._change(id, lambda r: moved(r, DurableState.CANCELLED, ended=self.clock.now()))
            self._tell(id)
            return record
        record = await self._change(id, lambda r: msgspec.structs.replace(r, cancelling=True))
        if not any(worker.cancel(id) for worker in self._workers_of(id)):
            await self._queue_now(id)
        return record

    async def resume(self, id: str) -> CallRecord:
        """Run a paused call again, from its history on."""
        return await self._tasks.through(self._resume(id))

    async def _resume(self, id: str) -> CallRecord:
        await self._change(id, _resumed)
        return await self._queue_now(id)

    async def restart(self, id: str, order: int = 1) -> CallRecord:
        """Run a call again and forget what it recorded from that step on: one that is paused or has failed."""
        return await self._tasks.through(self._restart(id, order))

    async def _restart(self, id: str, order: int) -> CallRecord:
        with self._ending_with_its_disk():
            record = await self.engine.restart(id, order)
        self._schedule(record)
        return record

    async def _change(self, id: str, how: Callable[[CallRecord], CallRecord]) -> CallRecord:
        with self._ending_with_its_disk():
            return await self.engine.change(id, how)

    async def answer(self, id: str, value: bytes, *, place: str = "") -> None:
        """Answer what a call asks. `Invalid` for an answer of another type; `Conflict` where it asks nothing."""
        await self._offered(id, Incoming("ask", "", value, place=place))

    async def signal(self, id: str, name: str, value: bytes) -> None:
        """Give a call a signal, which is kept until it waits for it."""
        await self._tasks.through(self._signal(id, name, value))

    async def _signal(self, id: str, name: str, value: bytes) -> None:
        with self._ending_with_its_disk():
            key = await self.engine.signal(id, name, value)
        offer = Incoming("signal", name, value, key=key)
        await self._offer(id, offer)

    async def _offered(self, id: str, offer: Incoming) -> None:
        await self._tasks.through(self._offer(id, offer))
        await offer.taken

    async def _offer(self, id: str, offer: Incoming) -> None:
        record = await self.engine.get(id)
        if record.state.ended or record.state is DurableState.PAUSED:
            raise Conflict(f"call {id} is {record.state}, and waits for nothing", code="bad_move", id=id)
        if not any(worker.offer(id, offer) for worker in self._workers_of(id)):
            self._offers.setdefault(id, []).append(offer)
            await self._queue_now(id)

    def _workers_of(self, id: str) -> tuple[CallWorker, ...]:
        return () if (running := self._running.get(id)) is None else running[1:]

    async def _offer_again(self, id: str, offer: Incoming) -> None:
        try:
            # its worker was lost, and may have taken it in the last that it handed in
            if offer.key and all(key != offer.key for key, _, _ in await self.engine.signals(id)):
                offer.take()
            else:
                await self._offer(id, offer)
        except BemaError as error:
            offer.refuse(error)

    async def _queue_now(self, id: str) -> CallRecord:
        record = await self.engine.get(id)
        if record.state in (DurableState.SLEEPING, DurableState.ASKING):
            # its waits stay: a sleep that is not over sleeps on
            record = await self._change(id, lambda r: moved(r, DurableState.QUEUED, due=0))
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
            due, turn = self._start_due()
            forgets = [] if due is None else [self.clock.at(due, self._news.set)]
            if turn is not None:
                forgets.append(self.clock.after(turn, self._news.set))
            await self._news.wait()
            for forget in forgets:
                forget()

    def _start_due(self) -> tuple[int | None, float | None]:
        """Start what is due and has room; the instant when the next is due, and the seconds until the next has its turn."""
        now, passing = self.clock.now(), self.clock.monotonic()
        next_due: int | None = None
        while self._admitted_again(passing) or self._queue:
            entry = self._queue[0]
            due, _, id = entry
            # an entry of a heap cannot be taken out of its middle: it is passed over when it comes up
            if self._queued.get(id) == due and due > now:
                next_due = due
                break
            heapq.heappop(self._queue)
            # kept apart, by what it waits for: those behind it are not to wait for it, nor to be looked at with it
            if (lacking := self._start(entry, passing)) and lacking not in (_TURN, _GONE):
                heapq.heappush(self._blocked.setdefault(lacking, []), entry)
            if lacking and not lacking.startswith(_ROOM):  # the room that it was tried for is another's
                self._release_room()
        return next_due, self._admission.wait(passing)

    def _admitted_again(self, passing: float) -> bool:
        """Queue what may have its turn now; whether there was any."""
        released = self._admission.released(passing)
        for entry in released:
            heapq.heappush(self._queue, entry)
        return bool(released)

    def _is_current(self, entry: Entry) -> bool:
        """Whether the call is still to run at that time: it was not queued anew for another, and has not ended."""
        due, _, id = entry
        if self._queued.get(id) != due:
            return False
        if id not in self.engine.live() or id in self._running:
            del self._queued[id]
            return False
        return True

    def _start(self, entry: Entry, passing: float) -> str:
        """Start a call; what it lacks, where it cannot run now."""
        if not self._is_current(entry):
            return _GONE
        id = entry[2]
        record = self.engine.live()[id]
        # an endpoint may be gone from the code: its calls wait until it is back
        if not (able := [worker for worker in self._workers if worker.serves(record)]):
            return f"route {record.route}"
        worker = min(able, key=self._busy.__getitem__)
        if self._busy[worker] >= self.engine.limits.jobs_running:
            return f"{_ROOM} {record.route} {record.version}"
        if self._admission.admit(record, passing):
            self._admission.hold(entry, record, passing)
            return _TURN
        del self._queued[id]
        self._busy[worker] += 1
        self._admission.begun(record, passing)
        self._running[id] = self._tasks.start(self._run(record, worker), f"call {id}"), worker
        return ""

    def _queue_of(self, route: str) -> Queue | None:
        # of the newest that serves it: a worker that is of an older version leaves soon
        return next((found for worker in reversed(self._workers) if (found := worker.queue_of(route))), None)

    def _release(self, lacking: str) -> None:
        """There is one place more: the first that waits for it is queued."""
        waiting = self._blocked.get(lacking, [])
        while waiting:
            entry = heapq.heappop(waiting)
            if self._is_current(entry):
                heapq.heappush(self._queue, entry)
                break
        if not waiting:
            self._blocked.pop(lacking, None)

    def _release_room(self) -> None:
        """A worker has a place: the first of each kind that waits for one is tried, for not every worker takes every kind."""
        for lacking in [one for one in self._blocked if one.startswith(_ROOM)]:
            self._release(lacking)

    def _release_all(self) -> None:
        blocked, self._blocked = self._blocked, {}
        for entries in blocked.values():
            for entry in entries:
                heapq.heappush(self._queue, entry)
        self._admission.reconsider()  # its queues may say something else
        self._news.set()

    async def _sweeps(self) -> None:
        while True:
            try:
                with self._ending_with_its_disk():
                    await self.engine.sweep(self.clock.now())
            except BemaError as error:  # what cannot be dropped now is dropped later
                logger.error("ended calls could not be dropped: %s", error.message)
            await until(self.clock, self.clock.now() + _SWEEP)

    # one run

    async def _run(self, admitted: CallRecord, worker: CallWorker) -> None:
        id = admitted.id
        offers: list[Incoming] = []
        try:
            # the claim is a commit of its own: two runs of one call can never both write
            record = await self.engine.claim(id, worker.version)
            try:
                assignment = await self._assignment(record)
                # what was asked meanwhile: from here to the run nothing is awaited
                offers += self._offers.pop(id, [])
                now = self.engine.live().get(id, record)
                if now.fence != record.fence:
                    raise StaleClaim(f"call {id} was begun anew")
                await worker.run(msgspec.structs.replace(assignment, record=now), offers)
            except StaleClaim:
                logger.warning("call %s: another claim took it over", id)
        except asyncio.CancelledError:
            raise
        except BemaError as error:
            # what it handed in last is written, or not, before it goes on elsewhere
            while handing := self._handing.get(id):
                await asyncio.wait(handing)
            await self._again(id, error)
        finally:
            del self._running[id]
            self._offers.setdefault(id, [])[:0] = offers
            if worker in self._busy:  # it did not leave meanwhile
                self._busy[worker] -= 1
            self._release_room()
            self._admission.ended(admitted)
            if not self._closing:
                self._after(id)

    async def _assignment(self, record: CallRecord) -> Assignment:
        return Assignment(
            record=record,
            arguments=await self.engine.arguments(record.id),
            entries=(await self.engine.journal(record.id)).entries,
            signals=await self.engine.signals(record.id),
        )

    async def _again(self, id: str, error: BemaError) -> None:
        """The run broke off: nothing is lost, and the call is queued when that can be written. A failed disk ends the owner."""
        while error.code != "state_failed":
            if not isinstance(error, Disconnected):  # else its worker is lost, and another may take it at once
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
        with contextlib.suppress(BemaError), self._ending_with_its_disk():
            raise error

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

    # the desk of its workers

    async def hand_in(self, id: str, work: Coroutine[Any, Any, None]) -> None:
        """What a worker elsewhere hands in of a call: it is written to its end, though the worker is lost meanwhile."""
        handing = self._handing.setdefault(id, set())
        handing.add(task := self._tasks.see_to(work))
        task.add_done_callback(lambda done: self._handed_in(id, done))
        await asyncio.shield(task)

    def _handed_in(self, id: str, done: asyncio.Task[None]) -> None:
        self._handing[id].discard(done)
        if not self._handing[id]:
            del self._handing[id]

    def complete(self, record: CallRecord, entry: JournalEntry, offer: Incoming | None) -> Awaitable[None]:
        # not a coroutine of its own: each is resumed with each step
        return self.engine.complete(record.id, record.fence, entry, "" if offer is None else offer.key)

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
        # paused, it keeps what it waited for: how often a step was tried, and since when
        waiting = {} if waits is None else {"waits": waits, "due": due}
        await self.engine.suspend(record.id, record.fence, lambda r: moved(r, state, code=code, why=why, **waiting))

    async def end(self, record: CallRecord, state: DurableState, payload: bytes, code: str = "", why: str = "") -> None:
        await self.engine.end(record.id, record.fence, state, payload, code, why, self.clock.now())

    def quiet(self) -> bool:
        """Whether nothing goes on in this process: what runs waits for its time or for somebody, and nothing is due."""
        now = self.clock.now()
        due = any(entry[0] <= now and self._is_current(entry) for entry in self._queue)
        return not due and self.schedules.quiet() and all(self._here.rests(id) for id in self._running)

    def metadata(self) -> Mapping[str, int]:
        """For the status pages: how many run and how many wait."""
        return {"running": len(self._running), "live": len(self.engine.live())}


def _resumed(record: CallRecord) -> CallRecord:
    # the table of moves has these from other states too: for whoever holds the claim, and for a restart
    if record.state is not DurableState.PAUSED:
        raise Conflict(f"call {record.id} is {record.state}, and not paused", code="bad_move", id=record.id)
    return moved(record, DurableState.QUEUED, code="", why="", due=0)

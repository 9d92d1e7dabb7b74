"""Execution: one run of a durable call, from its first line or through its history, to its end or to where it waits.

The handler runs in a loop of its own, which turns until each of its tasks waits for the call. Then one completion is given
out, and it turns again. While there is history, the completions are those of the journal in their order; after it they are what
steps and timers give, each once it is written. Laws: nothing is started before all history was given out; a result reaches the
handler as a replay would give it; a handler that asks for something else than its history has is paused, and both are named.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import Any, Final, Protocol

from bema.core.call import CURRENT, Call
from bema.core.durable import Retry
from bema.core.errors import Failed, Invalid, Refused
from bema.jobs.awaited import Awaited, Completion, Incoming, StepWork
from bema.jobs.calls import CallRecord, CallWait
from bema.jobs.journal import Journal, JournalEntry
from bema.jobs.loop import DurableLoop
from bema.jobs.steps import run_step, step_of
from bema.runtime.alarms import AlarmClock, until
from bema.wire.rpc import failures
from bema.wire.values import codecs

logger = logging.getLogger("bema.jobs")

HELD: Final = 1_000_000
"""Microseconds that a call waits with its tasks alive; one that waits longer is suspended, and replayed when it is due."""

# a context variable: a task that the handler makes inherits it with the rest of its context
PLACE: ContextVar[_Place | None] = ContextVar("bema_place")


class _Place:
    """Where the running task of a handler is: the numbers of its tasks, and how many operations and tasks it began."""

    __slots__ = ("children", "operations", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.operations = 0
        self.children = 0

    def next(self) -> str:
        self.operations += 1
        return f"{self.path}{self.operations}"

    def child(self) -> _Place:
        # counted apart from operations: the order of creation is the same in every replay, whoever runs first
        self.children += 1
        return _Place(f"{self.path}{self.operations}.{self.children}:")


class Suspended(BaseException):
    """The end of a run whose call waits: raised out of `Execution.run`, with what it waits for."""

    def __init__(self, waits: tuple[CallWait, ...]) -> None:
        self.waits = waits
        super().__init__("the call waits")


class HandlerFailed(Exception):
    """The handler raised `error`. What else comes out of a run is the engine's."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(str(error))


class Paused(BaseException):
    """The end of a run that cannot go on until a person has looked."""

    def __init__(self, code: str, why: str) -> None:
        self.code = code
        self.why = why
        super().__init__(why)


class Keeping(Protocol):
    """What an execution needs of whoever runs it."""

    clock: AlarmClock

    def complete(self, record: CallRecord, entry: JournalEntry, offer: Incoming | None) -> Awaitable[None]:
        """Write an entry, and that a signal was taken, under this run's claim."""


class Execution:
    """`run` gives the handler's result, or raises `HandlerFailed`, `Suspended`, `Paused`, or `CancelledError`."""

    def __init__(
        self,
        keeping: Keeping,
        record: CallRecord,
        journal: Journal,
        known: failures.Declared,
    ) -> None:
        self.record = record
        self.known = known
        self.suspending = False
        self.compensations: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.asks: dict[str, Awaited] = {}  # what waits for an answer or a signal, by place
        self._keeping = keeping
        self._journal = journal
        self._history = deque(journal.entries)
        self._waits = {wait.place: wait for wait in record.waits}
        self._loop = DurableLoop(record.route)
        self._loop.begun = self._begun
        self._outer = asyncio.get_running_loop()
        self._offers: list[Incoming] = []
        self._pending: dict[str, Awaited] = {}
        self._asked: list[Awaited] = []  # what was not begun yet
        self._completed: deque[Completion] = deque()
        self._news: asyncio.Future[None] | None = None  # while the run waits
        self._now = record.created
        self._pause: Paused | None = None
        self._cancel_asked = record.cancelling
        self._cancelled = False

    # from outside, at any moment

    @property
    def now(self) -> int:
        """The instant of the last completion: the same in every replay."""
        return self._now

    @property
    def clock(self) -> AlarmClock:
        return self._keeping.clock

    @property
    def rests(self) -> bool:
        """Whether no step of it runs: it waits for its time, for somebody outside, or for another call."""
        waiting = all(one.wait is not None or one.elsewhere for one in self._pending.values())
        return self._news is not None and not self._news.done() and waiting

    def offer(self, offer: Incoming) -> None:
        """Something came from outside; whoever waits for it gets it, now or later in this run."""
        self._offers.append(offer)
        self._wake()

    def _match(self) -> None:
        if not self._offers:  # as mostly
            return
        for offer in self._offers:
            offer.seen = True
        for operation in tuple(self.asks.values()):
            found = next((one for one in self._offers if one.fits(operation)), None)
            if found is None or operation.future.done():
                continue
            self._offers.remove(found)
            try:
                operation.decode(found.payload)
            except codecs.UNFIT as error:
                found.refuse(codecs.refusal(error, f"the answer to {operation.shown}"))
                continue
            del self.asks[operation.place]
            self.give(Completion(operation, found.payload, offer=found))

    @property
    def cancelled(self) -> bool:
        """Whether the handler was told to end."""
        return self._cancelled

    def left(self) -> list[Incoming]:
        """What was offered and is not written: nobody waited for it, or the run ended before."""
        matched = [one.offer for one in self._completed if one.offer is not None]
        for offer in matched:
            offer.seen = False  # it was waited for: the next run takes it
        return [*matched, *self._offers]

    def cancel(self) -> None:
        """Ask the handler to end."""
        self._cancel_asked = True
        self._wake()

    def give(self, completion: Completion) -> None:
        """What an operation came to; it is written, then given out."""
        self._completed.append(completion)
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # one run

    async def run(self, main: Callable[[], Awaitable[Any]], call: Call) -> Any:
        task = self._first(main, call)
        try:
            while not task.done():
                self._loop.turn()
                # set in the middle of a turn, where raising would reach the handler
                if self._pause is not None:
                    raise self._pause
                # one at a time, and a whole turn between two: `FIRST_COMPLETED` must see what it saw
                if task.done():
                    break
                if (self._history or self._completed or self._must_cancel()) and await self._give_next(task):
                    continue
                # only here, when all history was given out: a replay must not do anything twice
                self._start_all()
                self._match()
                if not self._completed and not self._must_cancel():
                    await self._wait()
            if self._history:
                # what is left shows that an earlier run came further by the same code
                entry = self._history[0]
                raise Paused("history_mismatch", f"the handler ended, and its history goes on with {entry.shown}")
            if not task.cancelled() and (error := task.exception()) is not None:
                raise HandlerFailed(error)
            return await task
        finally:
            self._tear_down(task)

    def _first(self, main: Callable[[], Awaitable[Any]], call: Call) -> asyncio.Task[Any]:
        async def handler() -> Any:
            CURRENT.set(call)
            try:
                return await main()
            except asyncio.CancelledError:
                if self._cancelled and not self.suspending:
                    await self._compensate()
                raise

        own = copy_context()
        own.run(PLACE.set, None)
        return self._loop.create_task(handler(), name=call.route, context=own)

    async def _compensate(self) -> None:
        while self.compensations:
            function, arguments = self.compensations.pop()
            await self.step(function, arguments, {}, Retry(), "")

    def _must_cancel(self) -> bool:
        return self._cancel_asked and not self._cancelled

    async def _give_next(self, task: asyncio.Task[Any]) -> bool:
        """Give out one completion, of the history or of what came since. False where there is none yet."""
        if self._history:
            entry = self._history[0]
            if entry.kind == "cancel":
                self._history.popleft()
                self._end(task)
                return True
            # all tasks wait: had the code asked for it, it would be here
            operation = self._pending.get(entry.place)
            if operation is None:
                raise Paused("history_mismatch", self._other(entry))
            self._history.popleft()
            self._give_out(operation, entry)
            return True
        if self._must_cancel():
            # written, so that a replay cancels at the same place
            await self._keep(
                JournalEntry(order=self._journal.next_order, place="cancel", kind="cancel", at=self.clock.now())
            )
            self._end(task)
            return True
        while self._completed:
            completion = self._completed.popleft()
            # its result is nobody's, and was never promised to anybody
            if completion.operation.place not in self._pending:  # cancelled meanwhile
                if completion.offer is not None:
                    self._offers.append(completion.offer)
                continue
            # written before it is given: what the handler knows must be known to the next run
            entry = self._entry(completion)
            try:
                await self._keep(entry, completion.offer)
            except BaseException:
                self._completed.appendleft(completion)
                raise
            # it may have been cancelled while it was written; a replay cancels it at the same place
            if completion.operation.place in self._pending:
                self._give_out(completion.operation, entry)
            return True
        return False

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._cancelled = True
        task.cancel()

    def _other(self, entry: JournalEntry) -> str:
        asked = ", ".join(operation.shown for operation in self._pending.values()) or "nothing"
        return f"the history has {entry.shown}, and the code asks for {asked}"

    def _entry(self, completion: Completion) -> JournalEntry:
        operation = completion.operation
        return JournalEntry(
            order=self._journal.next_order,
            place=operation.place,
            kind=operation.kind,
            name=operation.name,
            digest=operation.digest,
            value=completion.value,
            failure=completion.failure,
            at=self._keeping.clock.now(),
            tries=completion.tries,
        )

    async def _keep(self, entry: JournalEntry, offer: Incoming | None = None) -> None:
        await self._keeping.complete(self.record, entry, offer)
        self._journal.add(entry)
        if offer is not None:
            offer.take()

    def _give_out(self, operation: Awaited, entry: JournalEntry) -> None:
        del self._pending[operation.place]
        self.asks.pop(operation.place, None)
        # a clock may be set back, and time in a handler must not be
        self._now = max(self._now, entry.at)
        if operation.future.done():
            return
        if entry.failure:
            # not the exception that was raised: a replay has only what was written of it
            error = failures.rebuild(failures.read_failure(entry.failure), self.known)
            operation.future.set_exception(error)
            return
        try:
            operation.future.set_result(operation.decode(entry.value) if entry.value else None)
        except codecs.UNFIT as error:
            why = f"the recorded result of {entry.shown} does not fit what the code expects: {error}"
            self._pause = Paused("history_mismatch", why)

    def _start_all(self) -> None:
        for operation in self._asked:
            # it may have come from the history, or been cancelled
            if self._pending.get(operation.place) is operation:
                operation.running = self._begun_work(operation)
        self._asked.clear()

    def _begun_work(self, operation: Awaited) -> asyncio.Future[Any]:
        wait = operation.wait
        if operation.work is not None:
            # a late start of an earlier run's retry waits for its time first
            due = 0 if wait is None or wait.due <= self.clock.now() else wait.due
            if not due:
                operation.wait = None
            return self._outer.create_task(self._do(operation, operation.work, due))
        if wait is not None and operation.kind == "sleep":
            return self._outer.create_task(self._sleep(operation, wait.due))
        return self._outer.create_future()  # it comes from outside

    async def _wait(self) -> None:
        """For the next completion; `Suspended` where nothing runs and nothing is due soon."""
        if not self._pending:
            raise Paused(
                "not_replayable",
                f"{self.record.route} waits for something that is not its call's, and would wait for ever in a replay",
            )
        # a step that runs has no `wait`: while one does, nothing is put away
        waits = [operation.wait for operation in self._pending.values() if operation.wait is not None]
        if len(waits) == len(self._pending):
            soon = self._keeping.clock.now() + HELD
            if all(wait.due == 0 or wait.due > soon for wait in waits):
                raise Suspended(tuple(waits))
        self._news = self._outer.create_future()
        try:
            await self._news
        finally:
            self._news = None

    def _tear_down(self, task: asyncio.Task[Any]) -> None:
        """End every task of the handler: their `finally` runs, with `suspending` set where the call goes on later."""
        for operation in self._pending.values():
            if operation.running is not None:
                operation.running.cancel()
        self._pending.clear()
        self._asked.clear()
        # before the tasks are cancelled: their `finally` asks
        self.suspending = not task.done()
        # a handler may catch its cancellation and wait anew
        for _ in range(100):  # one that swallows its cancellation is left behind
            alive = [one for one in self._loop.tasks if not one.done()]
            if not alive:
                break
            for one in alive:
                one.cancel()
            self._loop.turn()
        if task.done() and not task.cancelled():
            task.exception()  # looked at, so that it is not reported as never retrieved
        self._loop.close()

    # what the handler asks for

    def _begun(self) -> None:
        place = PLACE.get(None)
        PLACE.set(_Place("") if place is None else place.child())

    def place_of_next(self) -> str:
        """Where the next operation of the running task will stand."""
        here = PLACE.get(None)
        return "" if here is None else f"{here.path}{here.operations + 1}"

    def operation(self, kind: str, name: str, digest: str = "") -> Awaited:
        """What stands at this place of the handler; `Paused` is raised by the run where its history has another."""
        if self.suspending:
            raise Refused(f"{self.record.route} is being suspended: it begins nothing more", code="not_replayable")
        here = PLACE.get(None)
        if here is None:
            raise Refused(f"{self.record.route} asks for this outside of its handler", code="not_replayable")
        place = here.next()
        entry = self._journal.at(place)
        operation = Awaited(place, kind, name, digest, self._loop.create_future())
        # a digest is compared only where both have one: some arguments have no bytes
        differs = entry is not None and (
            (entry.kind, entry.name) != (kind, name) or bool(entry.digest and digest and entry.digest != digest)
        )
        if entry is not None and differs and self._pause is None:
            also = " with other arguments" if (entry.kind, entry.name) == (kind, name) else ""
            self._pause = Paused(
                "history_mismatch", f"the history has {entry.shown}, and the code asks for {operation.shown}{also}"
            )
        operation.wait = self._waits.get(place)
        self._pending[place] = operation
        self._asked.append(operation)
        return operation

    async def _come(self, operation: Awaited) -> Any:
        try:
            return await operation.future
        except asyncio.CancelledError:
            if operation.future.cancelled() and self._pending.pop(operation.place, None) is not None:
                self.asks.pop(operation.place, None)
                if operation.running is not None:
                    operation.running.cancel()
            raise

    # the operations

    async def step(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        named: dict[str, Any],
        retry: Retry | None,
        digest: str,
        *,
        elsewhere: bool = False,
    ) -> Any:
        known = step_of(function)
        operation = self.operation("step", known.name, digest)
        operation.elsewhere = elsewhere
        operation.decode = known.decode
        operation.work = StepWork(known, function, arguments, named, retry)
        return await self._come(operation)

    async def _do(self, operation: Awaited, work: StepWork, due: int) -> None:
        """Run a step until it has a result or is tried no more, from the instant `due` on."""
        if due:
            await until(self.clock, due)
            operation.wait = None
        step, function, arguments, named, retry = work
        since, tries = self._since(operation)
        while True:
            tries += 1
            try:
                value = await run_step(step, function, arguments, named)
                payload = _encoded(step.encode, value, operation)
            # cancelled by its timeout or by the end of the run: neither is a failure of the step
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - a step may raise anything; it is the handler's
                passed = (self.clock.now() - since) / 1_000_000
                after = None if retry is None else retry.after(tries, passed)
                if after is None:
                    self._exhausted(operation, error, tries, retried=retry is not None)
                    return
                logger.warning(
                    "%s: %s failed, and is tried again in %.1f s: %s", self.record.route, operation.shown, after, error
                )
                due = self.clock.now() + round(after * 1_000_000)
                operation.wait = CallWait(
                    place=operation.place, kind="step", name=operation.name, due=due, since=since, tries=tries
                )
                self._wake()
                await until(self.clock, due)
                operation.wait = None
            else:
                self.give(Completion(operation, payload, tries=tries))
                return

    def _since(self, operation: Awaited) -> tuple[int, int]:
        # tries are counted across owners: else each death would give a failing step all of them anew
        kept = self._waits.get(operation.place)
        return (kept.since, kept.tries) if kept is not None and kept.since else (self.clock.now(), 0)

    def _exhausted(self, operation: Awaited, error: Exception, tries: int, *, retried: bool) -> None:
        if retried:
            self._pause = Paused(
                "retries_exhausted",
                f"{operation.shown} failed {tries} times, the last time with {type(error).__name__}: {error}",
            )
            self._wake()
            return
        self.give(Completion(operation, failure=failures.pack_failure(error), tries=tries))

    async def sleep(self, due: int) -> None:
        operation = self.operation("sleep", "")
        if operation.wait is None:
            operation.wait = CallWait(place=operation.place, kind="sleep", due=due)
        await self._come(operation)

    async def _sleep(self, operation: Awaited, due: int) -> None:
        await until(self.clock, due)
        self.give(Completion(operation))

    async def wait_for(self, kind: str, name: str, decode: Callable[[bytes], Any], **said: Any) -> Any:
        """For what comes from outside: an answer or a signal."""
        operation = self.operation(kind, name)
        operation.decode = decode
        operation.wait = CallWait(place=operation.place, kind=kind, name=name, **said)
        self.asks[operation.place] = operation
        return await self._come(operation)


def _encoded(encode: Callable[[Any], bytes], value: Any, operation: Awaited) -> bytes:
    try:
        return encode(value)
    except (Invalid, *codecs.UNFIT) as error:
        found = codecs.refusal(error, f"the result of {operation.shown}", value)
        raise Failed(
            found.message,
            code="not_recordable",
            fix=found.fix or "Return plain values, or annotate what the step returns.",
        ) from error

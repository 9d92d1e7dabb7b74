"""Simulation: the shipped owner, worker and ledger of durable calls under a seeded loop, on a disk that outlives each of them.

`simulate(seed)` is one schedule. Callers submit plans, signal, answer, cancel, resume and restart, while owners crash at any callback, close, cannot
write, or lose their disk, and the clock is set. Calls run in their owner's process, or in members of the platform, which are lost, fall
silent and come back. The last owner meets no fault, and has to bring all to its end. What
must hold is looked at in each commit, in each value that a handler is given, and at the end; what does not is a `Violation`
that names the seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast
from unittest import mock

import msgspec

from bema.core.call import Call, Unary
from bema.core.errors import BemaError, Conflict, NotFound, Refused
from bema.core.limits import DEFAULTS
from bema.core.naming import first_call_id
from bema.jobs import session, steps
from bema.jobs.calls import MOVES, CallRecord, CallWait, DurableState
from bema.jobs.journal import JournalEntry
from bema.jobs.ledger import Ledger
from bema.jobs.runner import Runner
from bema.jobs.worker import DurableEndpoint
from bema.runtime.alarms import SystemAlarmClock
from bema.runtime.rpc import signatures
from bema.runtime.rpc.adapter import handler_of
from bema.state.engine import Entry, Mutation
from bema.state.memory import MemoryEngine
from bema.wire.rpc import failures
from tests.jobs.members import Crew, service_of
from tests.jobs.plans import ONCE, Plan, Wants, expected, made, matches, play, wants
from tests.jobs.seeded_loop import Crashed, Late, SeededLoop, Stuck

START = 1_700_000_000_000_000
_DAY = 86_400
_LEASE = 1800  # seconds: who sleeps for days renews it often
Holds = Callable[[], bool]
_ENDED = (DurableState.DONE, DurableState.FAILED, DurableState.CANCELLED)
_record = msgspec.msgpack.Decoder(CallRecord).decode
_entry = msgspec.msgpack.Decoder(JournalEntry).decode


class Violation(AssertionError):
    """A promise that was broken, with the seed that shows it."""


class Outcome(NamedTuple):
    """One schedule: how much happened in it."""

    owners: int
    crashes: int
    refusals: int
    calls: int
    commits: int
    callbacks: int


class Faults(NamedTuple):
    """What one owner meets."""

    crash_at: int = 0  # the number of the callback
    close_after: float = 0.0  # seconds
    unwritable: float = 0.0  # chance of each commit
    failing: float = 0.0
    sets: tuple[tuple[float, int], ...] = ()  # after so many seconds the clock is set by so many

    @property
    def none(self) -> bool:
        return self == Faults()


class Caller:
    """One who asks, and what it was told; it outlives the owners that it asks."""

    def __init__(self, id: str, plan: Plan, chance: random.Random) -> None:
        self.id = id
        self.plan = plan
        self.wants: Wants = wants(plan)
        self.key = chance.choice(["", f"key of {id}"])
        self.group = chance.choice(["", "", "one", "two"])
        self.priority = chance.choice([0, 0, 5])
        self.delay = chance.choice([0, 0, 0.5, 600])
        self.begins = chance.random() * 3
        self.cancels_after = chance.choice([None, None, None, chance.random() * 5, chance.random() * 1000])
        self.asks_twice = chance.random() < 0.3
        self.acknowledged = False
        self.cancel_asked = False
        self.told: list[Any] = []
        self.undone = 0


class Disk(MemoryEngine):
    """What is on disk, and the laws of each commit."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.records: dict[str, CallRecord] = {}
        self.written: dict[str, int] = {}  # when each was last written
        self.commits = 0

    def commit(self, mutations: Sequence[Mutation]) -> int:
        """Apply a group at once; raises what `apply` raises."""
        self._bounds.check(mutations)
        self._look_at(mutations)
        self.commits += 1
        # it waits for nothing: one turn of its coroutine is all of it
        applying = self.apply(mutations)
        try:
            applying.send(None)
        except StopIteration as done:
            return cast("int", done.value)
        raise AssertionError("a commit in memory waits")

    def read(self, reading: Any) -> Any:
        try:
            reading.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("a look into memory waits")

    def _look_at(self, mutations: Sequence[Mutation]) -> None:
        if any(m.if_revision is not None and m.if_revision != self._revision_of(m.key) for m in mutations):
            return  # it will be refused
        gone = {m.key for m in mutations if m.value is None}
        for mutation in mutations:
            kind, _, rest = mutation.key.partition("/")
            if kind == "live" and mutation.value is not None:
                self._record(rest, _record(mutation.value), again=f"done/{rest}" in gone)
            elif kind == "done" and mutation.value is not None:
                self._record(rest, _record(mutation.value), again=False)
            elif kind == "step" and mutation.value is not None:
                self._step(rest.partition("/")[0], _entry(mutation.value), mutation.key)
            elif kind == "step":
                id = rest.partition("/")[0]
                if f"live/{id}" not in {m.key for m in mutations}:
                    self.world.broken(f"a step of {id} was dropped, and not by a restart")
                self.world.forgets(id)

    def _revision_of(self, key: str) -> int:
        found = self._entries.get(key)
        return 0 if found is None else found.revision

    def _record(self, id: str, after: CallRecord, *, again: bool) -> None:
        before = self.records.get(id)
        self.records[id] = after
        if before is None:
            self.written[id] = self.world.now()
            return
        if after.fence < before.fence:
            self.world.broken(f"the fence of {id} went from {before.fence} to {after.fence}")
        if before.state.ended and not again:
            self.world.broken(f"{id} was {before.state}, and is {after.state}")
        # an owner finds what ran when the last one died, and says so with its next claim
        ways = (
            MOVES[before.state]
            | {before.state}
            | (MOVES[DurableState.QUEUED] if before.state is DurableState.RUNNING else frozenset())
        )
        if after.state not in ways and not again:
            self.world.broken(f"{id} went from {before.state} to {after.state}")
        if after.waits and after.state is not before.state:
            self.world.asking.set()
        if after.state is DurableState.RUNNING and before.state is not DurableState.RUNNING:
            self.world.claimed(before, self.written[id])
        self.written[id] = self.world.now()

    def _step(self, id: str, entry: JournalEntry, key: str) -> None:
        if key in self._entries:
            self.world.broken(f"{key} was written twice")
        record = self.records[id]
        if record.state is not DurableState.RUNNING:
            self.world.broken(f"{entry.shown} of {id} was written while it is {record.state}")
        for other in self.steps(id):
            if other.place == entry.place:
                self.world.broken(f"two records of {entry.shown} of {id}")

    def steps(self, id: str) -> list[JournalEntry]:
        return [_entry(one.value) for one in self.read(self.scan(f"step/{id}/", "", 10_000))]


class State(MemoryEngine):
    """The disk as one owner has it: asked in order, committed in groups, answered later, and sometimes not."""

    def __init__(self, disk: Disk, faults: Faults, chance: random.Random) -> None:
        super().__init__()
        self._disk = disk
        self._faults = faults
        self._chance = chance
        self._slow = chance.choice([0.0, 0.001, 0.02, 0.3])
        self._asked: list[tuple[Callable[[], Any], bool, asyncio.Future[Any]]] = []
        self._busy = False
        self._failed = False
        self.gone = False  # its owner has crashed
        self.refusals = 0

    @property
    def revision(self) -> int:
        return self._disk.revision

    async def apply(self, mutations: Sequence[Mutation]) -> int:
        self._bounds.check(mutations)
        revision: int = await self._ask(lambda: self._disk.commit(mutations), writes=True)
        return revision

    async def get(self, key: str) -> Entry | None:
        found: Entry | None = await self._ask(lambda: self._disk.read(self._disk.get(key)))
        return found

    async def scan(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[Entry]:
        found: list[Entry] = await self._ask(lambda: self._disk.read(self._disk.scan(prefix, after, limit)))
        return found

    async def close(self) -> None:
        if not self.gone:
            await self._ask(lambda: None)
        self.gone = True

    def _ask(self, work: Callable[[], Any], *, writes: bool = False) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if self.gone:
            future.set_exception(Refused("the state is closed", code="state_failed"))
            return future
        self._asked.append((work, writes, future))
        if not self._busy:
            self._busy = True
            loop.call_later(self._latency(), self._work)
        return future

    def _latency(self) -> float:
        return self._slow * self._chance.random()

    def _work(self) -> None:
        group, self._asked = self._asked, []
        error = self._fault() if any(writes for _, writes, _ in group) else None
        # after a failed sync nobody knows: what was written may be there, or not
        hits = error is None or (error.code == "state_failed" and not self._failed and self._chance.random() < 0.5)
        self._failed = self._failed or (error is not None and error.code == "state_failed")
        outcomes = [self._outcome(work, writes, error, hits=hits) for work, writes, _ in group]
        asyncio.get_running_loop().call_later(self._latency(), self._answer, group, outcomes)

    def _fault(self) -> Refused | None:
        drawn = self._chance.random()
        if self._failed or drawn < self._faults.failing:
            self.refusals += 1
            return Refused("the disk failed", code="state_failed")
        if drawn < self._faults.failing + self._faults.unwritable:
            self.refusals += 1
            return Refused("the disk is full", code="state_unwritable")
        return None

    def _outcome(self, work: Callable[[], Any], writes: bool, error: Refused | None, *, hits: bool) -> Any:
        if writes and not hits:
            return error
        try:
            done = work()
        except BemaError as refused:
            return refused
        return error if writes and error is not None else done

    def _answer(self, group: list[tuple[Any, bool, asyncio.Future[Any]]], outcomes: list[Any]) -> None:
        for (_, _, future), outcome in zip(group, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._busy = bool(self._asked)
        if self._asked:
            asyncio.get_running_loop().call_later(self._latency(), self._work)


class World(SystemAlarmClock):
    """Everything that outlives an owner: the disk, the clock, the callers, and what their plans did."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.disk = Disk(self)
        self.passed = 0.0  # seconds of the loops, one after the other
        self.offset = 0  # microseconds by which the clock was set
        self.loop: SeededLoop | None = None
        self.alive = False
        self.asking = asyncio.Event()  # a call waits for something from outside
        self.wrong: list[str] = []
        self.seen: dict[str, dict[str, Any]] = defaultdict(dict)  # by call and path: what its handler was given
        self.tries: Counter[tuple[str, str]] = Counter()
        self.inside: dict[str, tuple[str, Holds]] = {}  # by group: the call that is in it
        self.strict_since: int | None = None  # from this instant on what is due runs at once
        self.limits = msgspec.structs.replace(
            DEFAULTS, jobs_running=self.chance.choice([1, 2, 8, 100]), jobs_lease=float(_LEASE)
        )
        self.elsewhere = self.chance.choice([0, 0, 1, 2, 3])  # so many members run the calls
        count = self.chance.randint(1, 5)
        self.callers = [Caller(self.new_id(), made(self.chance), self.chance) for _ in range(count)]
        self.by_id = {caller.id: caller for caller in self.callers}

    def new_id(self) -> str:
        return first_call_id(START) + "".join(self.chance.choice("0123456789abcdefghijklmnopqrstuv") for _ in range(10))

    # the clock of its owners

    def now(self) -> int:
        return START + self.offset + round(self.monotonic() * 1_000_000)

    def monotonic(self) -> float:
        return self.passed if self.loop is None else self.loop.time()

    async def beside(self, function: Callable[[], Any]) -> Any:
        """What a thread would do: threads know no seed."""
        await asyncio.sleep(self.chance.choice([0.0, 0.001, 0.5]) * self.chance.random())
        return function()

    # what must hold

    def broken(self, law: str) -> None:
        if self.alive:
            self.wrong.append(law)

    def claimed(self, before: CallRecord, since: int) -> None:
        """A call begins to run: it may not be late, where nothing kept it."""
        if self.strict_since is None or before.group or not before.due or self.limits.jobs_running < 100:
            return
        if (late := self.now() - max(before.due, self.strict_since, since)) > 3_000_000:
            self.broken(f"{before.id} was due {late / 1_000_000:.1f} s ago")
        if self.now() < before.due and before.state is not DurableState.QUEUED:
            # it was woken by a signal, an answer or a cancel: then it was queued before
            self.broken(f"{before.id} runs before it is due")

    def given(self, id: str, path: str, value: Any) -> None:
        """A handler was given a value: whatever a replay gives it there is the same."""
        if not self.alive:
            return
        known = self.seen[id].setdefault(path, value)
        if known != value:
            self.broken(f"{id} was given {known!r} at {path}, then {value!r}")

    def forgets(self, id: str) -> None:
        self.seen.pop(id, None)

    @contextlib.contextmanager
    def within(self, id: str, holds: Holds) -> Iterator[None]:
        group = self.by_id[id].group if id in self.by_id else ""
        other, other_holds = self.inside.get(group, (id, holds))
        if group and holds():
            if other != id and other_holds():
                self.broken(f"{id} and {other} of one group run at once")
            self.inside[group] = (id, holds)
        try:
            yield
        finally:
            if self.inside.get(group) == (id, holds):
                del self.inside[group]

    # one owner

    def owned(self, faults: Faults) -> bool:
        """One owner, until all has ended or it has; whether all has ended."""
        self.loop = SeededLoop(self.chance, self.passed, shuffled=self.chance.choice([0.0, 0.3, 1.0]))
        self.loop.crash_at = faults.crash_at
        self.loop.set_exception_handler(lambda loop, context: self.broken(f"{context!r}"))
        self.inside.clear()
        self.alive = True
        self.strict_since = self.now() if faults.none else None
        # sleeps one after the other at most, however often the clock was set back
        self.loop.until = self.passed + 60 * _DAY
        state = State(self.disk, faults, self.chance)

        def ended() -> None:
            self.alive, state.gone = False, True

        try:
            return self.loop.run(self._own(state, faults), ended)
        except Crashed:
            return False
        finally:
            self.passed = self.loop.time()
            self.refusals += state.refusals
            self.callbacks += self.loop.callbacks

    refusals = 0
    callbacks = 0

    async def _own(self, state: State, faults: Faults) -> bool:
        try:
            ledger = await Ledger.on(state, self.limits)
        except Refused:  # as a process that does not start
            return False
        runner = Runner(ledger, version="v1", clock=self)
        over = asyncio.Event()
        runner.failed = lambda error: over.set()
        mishaps = 0 if faults.none else self.chance.choice([0, 3, 12])
        crew = Crew(service_of(runner), self, self.chance, lambda holding: {ROUTE: _endpoint(holding)}, mishaps=mishaps)
        if not self.elsewhere:
            runner.endpoints[ROUTE] = ENDPOINT
        runner.begin()
        crew.begin(self.elsewhere)
        visits = [asyncio.ensure_future(self._visit(runner, caller)) for caller in self.callers]
        chores = [asyncio.ensure_future(self._look_after(runner, caller)) for caller in self.callers]
        chores.append(asyncio.ensure_future(self._tend(runner)))
        chores += [asyncio.ensure_future(crew.suffer())] if self.elsewhere else []
        sets = [asyncio.ensure_future(self._set_clock(*step)) for step in faults.sets]
        ending = asyncio.ensure_future(over.wait())
        closing = asyncio.ensure_future(asyncio.sleep(faults.close_after or 10**9))
        all_ended = asyncio.ensure_future(self._all(visits))
        await asyncio.wait({all_ended, ending, closing}, return_when=asyncio.FIRST_COMPLETED)
        done = all_ended.done()
        for task in (others := (*visits, *chores, *sets, ending, closing, all_ended)):
            task.cancel()
        for outcome in await asyncio.gather(*others, return_exceptions=True):
            if isinstance(outcome, Exception):
                self.broken(f"somebody who asks failed with {outcome!r}")
        with contextlib.suppress(Refused):
            await crew.close()
        return done

    async def _all(self, visits: list[asyncio.Task[None]]) -> None:
        await asyncio.wait(visits)

    async def _set_clock(self, after: float, seconds: int) -> None:
        await asyncio.sleep(after)
        self.offset += seconds * 1_000_000

    # those who ask

    async def _visit(self, runner: Runner, caller: Caller) -> None:
        await asyncio.sleep(max(0.0, caller.begins - self.monotonic()))
        times = 2 if caller.asks_twice else 1
        await asyncio.gather(*(self._ask(runner, caller) for _ in range(times)))

    async def _ask(self, runner: Runner, caller: Caller) -> None:
        record = CallRecord(
            id=caller.id,
            route=ROUTE,
            created=START,
            key=caller.key,
            group=caller.group,
            priority=caller.priority,
            due=START + round(caller.delay * 1_000_000) if caller.delay else 0,
        )
        arguments = ENDPOINT.encode_arguments({"plan": caller.plan})
        if self.chance.random() < 0.2:  # it leaves before it is answered, and asks again
            with contextlib.suppress(TimeoutError, Refused):
                async with asyncio.timeout(self.chance.choice([0.0, 0.01, 0.5]) * self.chance.random()):
                    await runner.submit(record, arguments)
        kept = await self._insist(lambda: runner.submit(record, arguments))
        caller.acknowledged = True
        if kept.id != caller.id:
            self.broken(f"{caller.id} was asked for, and {kept.id} was given")
        while True:
            try:
                told = ["done", await self._result(runner, caller.id)]
            except Conflict as conflict:
                if conflict.code == "call_cancelled":
                    told = ["cancelled"]
                elif conflict.code == "call_paused":
                    await self._resume(runner, caller)
                    continue
                else:
                    raise
            except Refused:
                await asyncio.sleep(0.5)
                continue
            except ValueError as error:
                if await self._restart(runner, caller, str(error)):
                    continue
                told = ["failed", str(error)]
            caller.told.append(told)
            return

    async def _result(self, runner: Runner, id: str) -> Any:
        if not self.elsewhere:
            return await runner.result(id)
        record, payload = await runner.outcome(id)  # whose types the members know
        if record.state is DurableState.DONE:
            return ENDPOINT.decode(payload)
        raise failures.rebuild(failures.read_failure(payload), ENDPOINT.known)

    async def _resume(self, runner: Runner, caller: Caller) -> None:
        await asyncio.sleep(self.chance.random() * 20)
        with contextlib.suppress(Conflict, Refused):
            await runner.resume(caller.id)

    async def _restart(self, runner: Runner, caller: Caller, said: str) -> bool:
        """A step that failed for once is done again, by the first who hears of it: whether this was such a call."""
        if not caller.wants.restart or said != ONCE:
            return False
        failed = [entry for entry in (await runner.engine.journal(caller.id)).entries if entry.failure]
        if failed and failed[-1].name.endswith("once"):
            with contextlib.suppress(Conflict, Refused):
                await runner.restart(caller.id, failed[-1].order)
        return True

    async def _insist(self, ask: Callable[[], Any]) -> Any:
        while True:
            try:
                return await ask()
            except Refused as refused:
                if refused.code not in ("state_unwritable", "state_failed"):
                    raise
            await asyncio.sleep(0.1 + self.chance.random() * 20)

    async def _look_after(self, runner: Runner, caller: Caller) -> None:
        """A cancel, and signals that come before anybody waits for them."""
        while not caller.acknowledged:
            await asyncio.sleep(0.2)
        if caller.cancels_after is not None and not caller.cancel_asked:
            await asyncio.sleep(max(0.0, caller.cancels_after - self.monotonic()))
            await self._insist(lambda: runner.cancel(caller.id))
            caller.cancel_asked = True
        for name in caller.wants.signals:
            if self.chance.random() < 0.5:
                await asyncio.sleep(self.chance.random())
                with contextlib.suppress(BemaError):
                    await runner.signal(caller.id, name, msgspec.msgpack.encode(f"signal {name}"))

    async def _tend(self, runner: Runner) -> None:
        """Give every call what it waits for; asked anew whenever one begins to wait."""
        self.asking = asyncio.Event()
        self.asking.set()
        while True:
            await self.asking.wait()
            self.asking.clear()
            await asyncio.sleep(self.chance.choice([0.0, 0.01, 1.0]) * self.chance.random())
            for record in tuple(runner.engine.live().values()):
                for wait in record.waits:
                    await self._give(runner, record.id, wait)

    async def _give(self, runner: Runner, id: str, wait: CallWait) -> None:
        try:
            if wait.kind == "signal" and not wait.name.startswith("never"):
                await runner.signal(id, wait.name, msgspec.msgpack.encode(f"signal {wait.name}"))
            elif wait.kind == "ask":
                await runner.answer(id, msgspec.msgpack.encode(f"answer {wait.prompt}"), place=wait.place)
        except (Conflict, NotFound):
            return  # it waits no more
        except Refused:
            asyncio.get_running_loop().call_later(0.5, self.asking.set)

    # the end

    def check(self) -> None:
        """What must hold when all has ended."""
        for caller in self.callers:
            record = self.disk.records[caller.id]
            if not record.state.ended:
                self.wrong.append(f"{caller.id} is {record.state} at the end")
                continue
            self._check_end(caller, record)
        for id, record in self.disk.records.items():
            there = self.disk.read(self.disk.get(f"live/{id}")) is not None
            if there == record.state.ended:
                self.wrong.append(f"{id} is {record.state}, and {'' if there else 'not '}among those that live")
        ended = sum(record.state.ended for record in self.disk.records.values())
        counted = self.disk.read(self.disk.get("meta/ended"))
        # an end that is refused while others are written is counted in theirs: it may be one too many
        if not self.refusals and (counted is None or int(counted.value) != ended):
            self.wrong.append(f"{ended} have ended, and {counted and counted.value!r} are counted")

    def _check_end(self, caller: Caller, record: CallRecord) -> None:
        ends = {msgspec.json.encode(told) for told in caller.told}
        if len(ends) > 1:
            self.wrong.append(f"callers of {caller.id} were told {ends}")
        wanted = expected(caller.plan)
        if record.state is DurableState.CANCELLED:
            if caller.cancels_after is None:
                self.wrong.append(f"{caller.id} was cancelled by nobody")
            done = Counter(e.name.rpartition(".")[2] for e in self.disk.steps(caller.id) if not e.failure)
            if done["booked"] != done["unbooked"]:
                self.wrong.append(f"{caller.id} was cancelled: {done['booked']} booked, {done['unbooked']} undone")
            return
        payload = self.disk.read(self.disk.get(f"result/{caller.id}"))
        if record.state is DurableState.DONE:
            result = ENDPOINT.decode(payload.value)
            if wanted[0] != "done" or not matches(wanted[1], result):
                self.wrong.append(f"{caller.id} came to {result!r}, and without faults to {wanted!r}")
            if caller.told and caller.told[0] != ["done", result]:
                self.wrong.append(f"{caller.id} came to {result!r}, and its caller was told {caller.told[0]!r}")
        elif wanted[0] != "failed":
            self.wrong.append(f"{caller.id} failed: {record.why}; without faults it comes to {wanted!r}")


CURRENT: list[World] = []


class Run:
    """The world as one run of a call has it. What a run tells whose session is over does not count."""

    def __init__(self, world: World, holds: Holds) -> None:
        self._world = world
        self._holds = holds
        self.chance = world.chance
        self.tries = world.tries

    def given(self, id: str, path: str, value: Any) -> None:
        if self._holds():
            self._world.given(id, path, value)


def _always() -> Holds:
    return lambda: True


def _endpoint(holding: Callable[[], Holds] = _always) -> DurableEndpoint:
    """The endpoint that plays plans. `holding` gives for a run that begins whether its session holds."""

    async def played(plan: list[Any], call: Call) -> list[Any]:
        world, holds = CURRENT[-1], holding()
        with world.within(call.id, holds):
            return await play(plan, call, Run(world, holds), "")

    spec = signatures.read(played, "play", method=False)
    return DurableEndpoint(spec, cast("Unary", handler_of(played, spec)))


ROUTE = "t.t.play"
ENDPOINT = _endpoint()


class _Failures(logging.Handler):
    """What tasks of the owner failed with: nothing but a promise broken."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "bema.runtime.tasks":
            error = record.exc_info[1] if record.exc_info else None
            self._world.broken(f"{record.getMessage()}: {error!r}")


def simulate(seed: int) -> Outcome:
    """One schedule; `Violation` names what it broke."""
    random.seed(seed)  # of the waits between tries
    world = World(seed)
    chance, crashes, owners = world.chance, 0, 0
    logger, handler = logging.getLogger("bema"), _Failures(world)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    CURRENT.append(world)
    patches = contextlib.ExitStack()
    # a generator that is collected asks its loop for its end: when, no seed would say
    if gc.isenabled():
        gc.disable()
        patches.callback(gc.enable)
    patches.enter_context(mock.patch.object(steps, "in_thread", world.beside))
    patches.enter_context(mock.patch.object(session, "monotonic", world.monotonic))
    patches.enter_context(mock.patch("bema.jobs.service.secrets.randbits", world.chance.getrandbits))
    try:
        all_ended = False
        for _ in range(chance.choice([0, 1, 2, 5, 12])):
            faults = _faults(chance)
            crashes += faults.crash_at > 0
            owners += 1
            if all_ended := world.owned(faults):
                break
        if not all_ended:
            owners += 1
            world.owned(Faults())
        if not world.wrong:
            world.check()
    except (Stuck, Late) as error:
        left = [f"{r.id} {r.state} {r.waits}" for r in world.disk.records.values() if not r.state.ended]
        world.wrong.append(f"a wake-up was lost: {error}; {left}")
    finally:
        CURRENT.pop()
        patches.close()
        logger.removeHandler(handler)
        logger.propagate = propagates
    if world.wrong:
        raise Violation(f"seed {seed}: {'; '.join(world.wrong[:5])}")
    return Outcome(owners, crashes, world.refusals, len(world.callers), world.disk.commits, world.callbacks)


def _faults(chance: random.Random) -> Faults:
    kind = chance.choice(["crash", "crash", "crash", "close", "full", "failing", "clock"])
    sets: tuple[tuple[float, int], ...] = ()
    if kind == "clock" or chance.random() < 0.2:
        sets = ((chance.random() * 20, chance.choice([-_DAY, -3600, 3600, _DAY])),)
    return Faults(
        crash_at=round(chance.paretovariate(0.6) * 5) if kind in ("crash", "clock", "full") else 0,
        close_after=chance.choice([0.01, 1.0, 60.0, 10.0 * _DAY]) if kind in ("close", "failing") else 0.0,
        unwritable=0.2 if kind == "full" else 0.0,
        failing=0.05 if kind == "failing" else 0.0,
        sets=sets,
    )


__all__ = ["Outcome", "Violation", "World", "simulate"]

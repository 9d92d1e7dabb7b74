"""Ledger: durable calls on a state engine, which groups the commits of many callers.

The keys: `live/ID` and `done/ID` hold records, `args/ID` and `result/ID` payloads, `step/ID/ORDER` the journal, `key/ROUTE/KEY`
the id that a repeated request gets, `schedule/NAME` a schedule. Ids sort by creation, so what ended is swept from its oldest on, and a page is a scan.
Laws: who runs a call is known in memory, since one process has the file, and every write is checked against it in the same turn
of the loop in which it is handed to the engine; what the engine refuses is undone here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from bema.core.errors import Conflict, NotFound, Overloaded, TooLarge
from bema.core.limits import Limits
from bema.core.settings import PartSettings
from bema.jobs.calls import CallRecord, DurableState, moved
from bema.jobs.engine import StaleClaim
from bema.jobs.journal import Journal, JournalEntry
from bema.jobs.layout import bring_up
from bema.jobs.schedule import Schedule
from bema.state.engine import Mutation, RevisionConflict, StateEngine, StateFactory
from bema.state.memory import MemoryEngine
from bema.state.sqlite import SqliteEngine

_PAGE: Final = 1000
_RETRY_AFTER: Final = 1.0  # seconds, for who finds no room for a call

_encode = msgspec.msgpack.Encoder().encode
_record = msgspec.msgpack.Decoder(CallRecord).decode
_signal = msgspec.msgpack.Decoder(tuple[str, bytes]).decode
_entry = msgspec.msgpack.Decoder(JournalEntry).decode
_schedule = msgspec.msgpack.Decoder(Schedule).decode

Change = Callable[[CallRecord], CallRecord]


class Ledger:
    """On any state engine; `MemoryLedger` and `SqliteLedger` open theirs."""

    def __init__(self, state: StateEngine, limits: Limits) -> None:
        self._state = state
        self._limits = limits
        self._live: dict[str, CallRecord] = {}
        self._signals = state.revision  # grows with every signal, and from one owner to the next
        self._ended = 0
        self._watched: dict[str, set[asyncio.Event]] = {}

    @classmethod
    async def open(cls, settings: PartSettings, name: str = "calls") -> Ledger:
        """The calls `name` on the state engine in use; `Refused` (state_held) while another process has them."""
        return await _opened(cls, await StateFactory.choose().open(settings, f"jobs/{name}.sqlite"), settings)

    @classmethod
    async def on(cls, state: StateEngine, limits: Limits) -> Ledger:
        """The ledger that a state holds; what ran when its owner died is queued again."""
        await bring_up(state)
        ledger = cls(state, limits)
        async for _, value in _scanned(state, "live/"):
            record = _record(value)
            if record.state is DurableState.RUNNING:  # its fence stays: the next claim takes a higher one
                record = moved(record, DurableState.QUEUED)
            ledger._live[record.id] = record
        if (count := await state.get("meta/ended")) is not None:
            ledger._ended = int(count.value)
        return ledger

    @property
    def limits(self) -> Limits:
        return self._limits

    def live(self) -> Mapping[str, CallRecord]:
        return self._live

    # new calls

    async def create(self, record: CallRecord, arguments: bytes) -> CallRecord:
        self._check(arguments, "the arguments")
        known = await self._known(record) or self._live.get(record.id)
        if known is not None:
            with contextlib.suppress(NotFound):
                return await self._same(known, record, arguments)
            # the first was still being written, and could not be: this one takes its place
            return await self.create(record, arguments)
        if len(self._live) >= (most := self._limits.jobs_live):
            raise Overloaded(
                f"{most} calls have not ended, and no more are kept (jobs_live)",
                code="jobs_full",
                retry_after=_RETRY_AFTER,
                limit=most,
            )
        # all or nothing: a key without its call would answer with an id that nobody has
        mutations = [
            Mutation(f"live/{record.id}", _encode(record), 0),
            Mutation(f"args/{record.id}", arguments),
            *([Mutation(_key(record), record.id.encode(), 0)] if record.key else ()),
        ]
        # shown at once, so that a second request in the same turn finds it
        self._live[record.id] = record
        try:
            await self._state.apply(mutations)
        except RevisionConflict:  # another request with the same key was faster
            self._live.pop(record.id, None)
            if (known := await self._known(record)) is None:
                raise
            return await self._same(known, record, arguments)
        except BaseException:
            self._live.pop(record.id, None)
            raise
        return record

    async def _known(self, record: CallRecord) -> CallRecord | None:
        id = record.id
        if record.key and (found := await self._state.get(_key(record))) is not None:
            id = found.value.decode()
        elif record.id in self._live:
            return self._live[record.id]
        with contextlib.suppress(NotFound):
            return await self.get(id)
        return None

    async def _same(self, known: CallRecord, asked: CallRecord, arguments: bytes) -> CallRecord:
        if known.route != asked.route or await self.arguments(known.id) != arguments:
            raise Conflict(
                f"call {known.id} is another one: its {'route' if known.route != asked.route else 'arguments'} differ",
                code="call_exists",
                id=known.id,
            )
        return known

    # by who runs it

    async def claim(self, id: str, version: str) -> CallRecord:
        before = self._must_live(id)
        return await self._put(
            moved(
                before,
                DurableState.RUNNING,
                fence=before.fence + 1,
                attempts=before.attempts + 1,
                version=before.version or version,
                due=0,
                code="",
                why="",
            )
        )

    async def complete(self, id: str, fence: int, entry: JournalEntry, signal: str = "") -> None:
        self._claimed(id, fence)
        if len(payload := entry.value or entry.failure) > self._limits.jobs_payload:
            self._check(payload, f"the result of {entry.shown}")
        if entry.order > self._limits.jobs_history:
            raise TooLarge(
                f"call {id} has {self._limits.jobs_history} steps, and at most so many are kept (jobs_history)",
                limit=self._limits.jobs_history,
                fix="Split the work into calls of its own with `call.child`, or raise the limit.",
            )
        mutations = [Mutation(_step(id, entry.order), _encode(entry), 0)]
        if signal:
            mutations.append(Mutation(signal, None))
        await self._state.apply(mutations)
        self._written(id)

    async def suspend(self, id: str, fence: int, how: Change) -> CallRecord:
        return await self._put(how(self._claimed(id, fence)))

    async def end(
        self, id: str, fence: int, state: DurableState, payload: bytes, code: str = "", why: str = "", now: int = 0
    ) -> CallRecord:
        before = self._claimed(id, fence)
        return await self._end(moved(before, state, code=code, why=why, ended=now, waits=()), payload)

    async def _end(self, record: CallRecord, payload: bytes) -> CallRecord:
        self._check(payload, "the result")
        # no run may write any more while the end is being written
        before = self._live.pop(record.id)
        self._ended += 1
        try:
            await self._state.apply(
                [
                    Mutation(f"live/{record.id}", None),
                    Mutation(f"done/{record.id}", _encode(record)),
                    Mutation(f"result/{record.id}", payload),
                    Mutation("meta/ended", str(self._ended).encode()),
                ]
            )
        except BaseException:
            self._live[record.id] = before
            self._ended -= 1
            raise
        self._written(record.id)
        return record

    def _claimed(self, id: str, fence: int) -> CallRecord:
        record = self._live.get(id)
        if record is None or record.fence != fence or record.state is not DurableState.RUNNING:
            raise StaleClaim(f"the claim {fence} of call {id} is stale")
        return record

    # by people

    async def change(self, id: str, how: Change) -> CallRecord:
        before = self._live.get(id) or await self.get(id)
        after = how(before)
        if after is before:
            return before
        return await self._end(after, b"") if after.state.ended else await self._put(after)

    async def restart(self, id: str, order: int) -> CallRecord:
        before = await self.get(id)
        # a fence more: a run that is still being put away must not write what was forgotten
        after = moved(before, DurableState.QUEUED, code="", why="", due=0, waits=(), ended=0, fence=before.fence + 1)
        dropped = [entry.order for entry in (await self.journal(id)).entries if entry.order >= order]
        if self._live.get(id, before) is not before:
            raise Conflict(f"call {id} was changed meanwhile", code="bad_move", id=id)
        mutations = [Mutation(_step(id, one), None) for one in dropped]
        if id not in self._live:  # it had ended
            self._ended -= 1
            mutations += [
                Mutation(f"done/{id}", None),
                Mutation(f"result/{id}", None),
                Mutation("meta/ended", str(self._ended).encode()),
            ]
        self._live[id] = after
        try:
            await self._state.apply([*mutations, Mutation(f"live/{id}", _encode(after))])
        except BaseException:
            if before.state.ended:
                del self._live[id]
                self._ended += 1
            else:
                self._live[id] = before
            raise
        self._written(id)
        return after

    async def signal(self, id: str, name: str, payload: bytes) -> str:
        self._check(payload, "the signal")
        self._must_live(id)
        self._signals += 1
        key = f"signal/{id}/{self._signals:012d}"
        await self._state.apply([Mutation(key, _encode([name, payload]))])
        return key

    async def signals(self, id: str) -> list[tuple[str, str, bytes]]:
        found = [(key, _signal(value)) async for key, value in _scanned(self._state, f"signal/{id}/")]
        return [(key, name, payload) for key, (name, payload) in found]

    # reading

    async def get(self, id: str) -> CallRecord:
        if (record := self._live.get(id)) is not None:
            return record
        if (found := await self._state.get(f"done/{id}")) is not None:
            return _record(found.value)
        # an end that could not be written gave the call back meanwhile
        if (record := self._live.get(id)) is None:
            raise NotFound(f"there is no call {id}")
        return record

    async def arguments(self, id: str) -> bytes:
        return await self._payload(f"args/{id}", id)

    async def outcome(self, id: str) -> bytes:
        return await self._payload(f"result/{id}", id)

    async def _payload(self, key: str, id: str) -> bytes:
        if (found := await self._state.get(key)) is None:
            raise NotFound(f"there is no call {id} with such a payload")
        return found.value

    async def journal(self, id: str, after: int = 0) -> Journal:
        behind = _step(id, after) if after else ""
        return Journal([_entry(value) async for _, value in _scanned(self._state, f"step/{id}/", behind)])

    @contextlib.contextmanager
    def watching(self, id: str) -> Iterator[asyncio.Event]:
        written = asyncio.Event()
        self._watched.setdefault(id, set()).add(written)
        try:
            yield written
        finally:
            self._watched[id].discard(written)
            if not self._watched[id]:
                del self._watched[id]

    async def recent(self, count: int, before: str = "") -> list[CallRecord]:
        page = await self._state.scan_back("done/", f"done/{before}" if before else "", count)
        return [_record(entry.value) for entry in page]

    async def sweep(self, now: int) -> int:
        oldest = now - round(self._limits.jobs_kept_for * 1_000_000)
        swept = 0
        while True:
            # the oldest: ids sort by creation, and what was made first has mostly ended first
            page = await self._state.scan("done/", "", _PAGE)
            gone = [
                record.id
                for number, record in enumerate(_record(entry.value) for entry in page)
                if record.ended < oldest or self._ended - number > self._limits.jobs_kept
            ]
            for id in gone:
                await self._drop(id)
            swept += len(gone)
            if len(gone) < _PAGE:
                return swept

    async def _drop(self, id: str) -> None:
        record = await self.get(id)
        steps = [key async for key, _ in _scanned(self._state, f"step/{id}/")]
        steps += [key async for key, _ in _scanned(self._state, f"signal/{id}/")]
        # the record last in sight but in one group: half a call is never seen
        keys = [*steps, f"args/{id}", f"result/{id}", f"done/{id}", *([_key(record)] if record.key else ())]
        self._ended -= 1
        mutations = [*(Mutation(key, None) for key in keys), Mutation("meta/ended", str(self._ended).encode())]
        await self._state.apply(mutations)

    async def close(self) -> None:
        await self._state.close()

    # schedules

    async def schedules(self) -> list[Schedule]:
        return [_schedule(value) async for _, value in _scanned(self._state, "schedule/")]

    async def keep_schedule(self, schedule: Schedule) -> None:
        self._check(schedule.arguments, f"the arguments of schedule {schedule.name}")
        await self._state.apply([Mutation(f"schedule/{schedule.name}", _encode(schedule))])

    async def drop_schedule(self, name: str) -> None:
        await self._state.apply([Mutation(f"schedule/{name}", None)])

    # writing

    async def _put(self, record: CallRecord, *more: Mutation) -> CallRecord:
        before = self._live.get(record.id)
        self._live[record.id] = record
        try:
            await self._state.apply([Mutation(f"live/{record.id}", _encode(record)), *more])
        except BaseException:
            if before is not None and self._live.get(record.id) is record:
                self._live[record.id] = before
            raise
        self._written(record.id)
        return record

    def _written(self, id: str) -> None:
        for written in self._watched.get(id, ()):
            written.set()

    def _must_live(self, id: str) -> CallRecord:
        if (record := self._live.get(id)) is None:
            raise NotFound(f"there is no call {id} that has not ended")
        return record

    def _check(self, payload: bytes, what: str) -> None:
        if len(payload) > (most := self._limits.jobs_payload):
            raise TooLarge(f"{what} has {len(payload)} bytes, and at most {most} are kept (jobs_payload)", limit=most)


class MemoryLedger(Ledger):
    """It forgets with its process: for tests, and for who wants durable calls without their durability."""

    @classmethod
    async def open(cls, settings: PartSettings, name: str = "calls") -> Ledger:
        return await _opened(cls, await MemoryEngine.open(settings, name), settings)


class SqliteLedger(Ledger):
    """In a file below the state directory, one for each name."""

    @classmethod
    async def open(cls, settings: PartSettings, name: str = "calls") -> Ledger:
        return await _opened(cls, await SqliteEngine.open(settings, f"jobs/{name}.sqlite"), settings)


async def _opened(cls: type[Ledger], state: StateEngine, settings: PartSettings) -> Ledger:
    try:
        return await cls.on(state, settings.limits)
    except BaseException:
        await state.close()  # or whoever tries again finds it held
        raise


def _key(record: CallRecord) -> str:
    return f"key/{record.route}/{record.key}"


def _step(id: str, order: int) -> str:
    return f"step/{id}/{order:09d}"


async def _scanned(state: StateEngine, prefix: str, after: str = "") -> Any:
    """Keys and values in order, a page at a time."""
    page: Sequence[Any] = await state.scan(prefix, after, _PAGE)
    while page:
        for entry in page:
            yield entry.key, entry.value
        if len(page) < _PAGE:
            return
        page = await state.scan(prefix, page[-1].key, _PAGE)

"""What every jobs engine promises: durable calls, what of them is done, their schedules, who may write; not how they run.

Laws: what returned is durable. One claim of a call may write at a time, the newest; any other is told that it is stale, and
changes nothing. An entry of a journal is written once. What has ended is kept as long as the limits say, and nothing else is
ever dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from bema.core.errors import Conflict
from bema.core.limits import Limits
from bema.core.settings import PartSettings
from bema.core.version import VERSION
from bema.jobs.calls import CallRecord, DurableState
from bema.jobs.journal import Journal, JournalEntry
from bema.jobs.schedule import Schedule
from bema.parts import Factory


class StaleClaim(Conflict):
    """Another claim has taken the call over: whoever holds this one stops, and writes nothing."""

    code = "stale_claim"


class JobsEngine(Protocol):
    """Calls by their id. Payloads are bytes, whose types the caller knows. Every method may raise what a state engine raises."""

    @classmethod
    async def open(cls, settings: PartSettings, name: str = "calls") -> JobsEngine:
        """The calls `name`, taken by this process alone; `Refused` (state_held) while another has them."""

    @property
    def limits(self) -> Limits:
        """What bounds payloads, histories and what is kept."""

    def live(self) -> Mapping[str, CallRecord]:
        """The calls that have not ended, by id."""
        ...

    async def create(self, record: CallRecord, arguments: bytes) -> CallRecord:
        """Keep a new call. A record with the same id, or with the same key on its route, is given back instead.

        `Conflict` (call_exists) where its arguments or route differ; `TooLarge` for arguments over `jobs_payload`; `Overloaded`
        (jobs_full) where `jobs_live` calls have not ended: the new one is not kept, and all others are.
        """
        ...

    async def claim(self, id: str, version: str) -> CallRecord:
        """Run it: gives the record with the fence of this claim. `Conflict` (bad_move) where it cannot run now."""
        ...

    async def complete(self, id: str, fence: int, entry: JournalEntry, signal: str = "") -> None:
        """Add an entry, and take the signal of that key out to the journal. `StaleClaim`; `TooLarge` beyond `jobs_payload` or `jobs_history`."""
        ...

    async def suspend(self, id: str, fence: int, how: Callable[[CallRecord], CallRecord]) -> CallRecord:
        """Let go of a claim: `how` gives the record as it is to wait. `StaleClaim`."""
        ...

    async def end(
        self, id: str, fence: int, state: DurableState, payload: bytes, code: str = "", why: str = "", now: int = 0
    ) -> CallRecord:
        """The end at the instant `now`, with the encoded result or failure. `StaleClaim`."""
        ...

    async def change(self, id: str, how: Callable[[CallRecord], CallRecord]) -> CallRecord:
        """What a person asks for. `NotFound`; what `how` raises."""
        ...

    async def restart(self, id: str, order: int) -> CallRecord:
        """Forget the journal from that order on, and queue the call again."""
        ...

    async def signal(self, id: str, name: str, payload: bytes) -> str:
        """Keep a signal until the call takes it; gives its key. `NotFound` for a call that has ended."""
        ...

    async def signals(self, id: str) -> list[tuple[str, str, bytes]]:
        """The signals that were not taken yet, in order: key, name and payload."""
        ...

    async def get(self, id: str) -> CallRecord:
        """The record, ended or not; `NotFound`."""
        ...

    async def arguments(self, id: str) -> bytes:
        """The encoded arguments; `NotFound`."""
        ...

    async def journal(self, id: str, after: int = 0) -> Journal:
        """What is done of it, behind the entry of that order."""
        ...

    def watching(self, id: str) -> AbstractContextManager[asyncio.Event]:
        """An event that each write about the call sets, once it is durable. Watch, then read: then nothing is missed."""
        ...

    async def outcome(self, id: str) -> bytes:
        """The encoded result or failure of a call that has ended; `NotFound`."""
        ...

    async def recent(self, count: int, before: str = "") -> list[CallRecord]:
        """The newest that have ended, the newest first; only calls older than `before`, where it is given."""
        ...

    async def sweep(self, now: int) -> int:
        """Drop what has ended and is kept no longer; how many."""
        ...

    async def schedules(self) -> list[Schedule]:
        """The schedules that are kept, by name."""
        ...

    async def keep_schedule(self, schedule: Schedule) -> None:
        """Keep a schedule in place of the one of its name. `TooLarge` for arguments over `jobs_payload`."""
        ...

    async def drop_schedule(self, name: str) -> None:
        """Forget a schedule, if there is one of that name."""
        ...

    async def close(self) -> None:
        """Let go of the calls; whoever opens them next goes on."""
        ...


class JobsFactory(Factory[JobsEngine], group="bema.jobs", api=VERSION, default="sqlite", opens="waiting"):
    """Opened with a name, one per component."""


JobsFactory.register_lazy("memory", "bema.jobs.ledger:MemoryLedger")
JobsFactory.register_lazy("sqlite", "bema.jobs.ledger:SqliteLedger")

"""Replay: a durable call run again with what it recorded, to see where its code comes to.

Laws: nothing is written, and no step, sleep or question is begun: where the history ends, the run ends, with what the handler
then waits for. The handler itself runs, as it does in every replay.
"""

from __future__ import annotations

import asyncio
import os.path
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import msgspec

from bema.jobs.awaited import Awaited, Incoming
from bema.jobs.calls import CallRecord, DurableState
from bema.jobs.durable_call import DurableCall
from bema.jobs.execution import Execution, HandlerFailed, Paused
from bema.jobs.journal import Journal, JournalEntry
from bema.jobs.worker import DurableEndpoint
from bema.runtime.alarms import AlarmClock, SystemAlarmClock
from bema.wire.rpc import failures
from bema.wire.values import codecs

_OURS = str(Path(__file__).parents[1]) + os.path.sep

Frames = list[tuple[FrameType, int]]
"""Frames with the lines that they stand at, the outermost first."""


class CallHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it is kept: its record, encoded arguments, journal, and the encoded result or failure of one that ended."""

    record: CallRecord
    arguments: bytes
    entries: list[JournalEntry]
    payload: bytes | None = None


class ReplayEnd(NamedTuple):
    """Where a replay came to: `done`, `failed`, `cancelled`, `waits` or `differs`; `agrees`: the history has nothing else."""

    kind: str
    says: str
    agrees: bool = True


class _Stands(BaseException):
    """All history was given out, and the handler waits for more."""

    def __init__(self, waits: list[str]) -> None:
        self.waits = waits
        super().__init__("the history ends here")


class _NoDesk:
    """Nobody takes what a replay would write, so that one that begins to write is found out."""

    clock: AlarmClock = SystemAlarmClock()

    async def complete(self, record: CallRecord, entry: JournalEntry, offer: Incoming | None) -> NoReturn:
        raise AssertionError(f"a replay does not write: {entry.shown}")


class Replay(Execution):
    """One run through a history. `told` hears of each entry as it is given out; `look` gets the frames where the run ended."""

    def __init__(
        self,
        history: CallHistory,
        endpoint: DurableEndpoint,
        told: Callable[[JournalEntry], object] = lambda entry: None,
        look: Callable[[Frames], object] = lambda frames: None,
    ) -> None:
        # who cancels it now is nothing of the history
        record = msgspec.structs.replace(history.record, cancelling=False)
        super().__init__(_NoDesk(), record, Journal(history.entries), endpoint.known)
        self.raised: BaseException | None = None
        self._kept = history
        self._endpoint = endpoint
        self._told = told
        self._look = look

    async def end(self) -> ReplayEnd:
        """Run the handler through the history, and say where it came to. To be called once."""
        try:
            arguments = self._endpoint.decode_arguments(self._kept.arguments)
        except codecs.UNFIT as error:
            return ReplayEnd("differs", f"its arguments do not fit {self.record.route} any more: {error}", False)
        call = DurableCall(self, arguments)
        try:
            value = await self.run(lambda: self._endpoint.handler(call), call)
        except _Stands as stands:
            return self._waiting(stands.waits)
        except Paused as paused:
            also = "" if self.raised is None else f"; it raised {_said(self.raised)}"
            return ReplayEnd("differs", f"{paused.why}{also}", False)
        except HandlerFailed as failed:
            return self._failed(failed.error)
        except asyncio.CancelledError:
            if not self.cancelled:
                raise
            return ReplayEnd("cancelled", "the handler ended, as it was asked to")
        return self._done(value)

    def _waiting(self, waits: list[str]) -> ReplayEnd:
        asks = ", ".join(waits)
        if self._kept.record.state in (DurableState.DONE, DurableState.FAILED):
            return ReplayEnd("differs", f"the call has {self._kept.record.state}, and the code asks for {asks}", False)
        return ReplayEnd("waits", asks)

    def _done(self, value: Any) -> ReplayEnd:
        try:
            payload = self._endpoint.encode(value)
            shown = _shown(payload)
            if self._kept.record.state is DurableState.DONE:
                recorded = self._kept.payload or b""
                # not the bytes: a set has its members in another order in each process
                if self._endpoint.decode(payload) != self._endpoint.decode(recorded):
                    said = f"the call ended with {_shown(recorded)}, and the handler now with {shown}"
                    return ReplayEnd("differs", said, False)
        except codecs.UNFIT as error:
            return ReplayEnd("differs", f"the result does not fit {self.record.route}: {error}", False)
        if self._kept.record.state is DurableState.FAILED:
            return ReplayEnd("differs", f"the call failed, and the handler now ends with {shown}", False)
        return ReplayEnd("done", shown)

    def _failed(self, error: BaseException) -> ReplayEnd:
        said = _said(error)
        if self._kept.record.state is not DurableState.FAILED:
            return ReplayEnd("failed", said, False)
        recorded = failures.read_failure(self._kept.payload or b"")
        if (recorded.type or recorded.code) != (own := failures.read_failure(failures.pack_failure(error))).type:
            was = f"{recorded.type or recorded.code}: {recorded.message}"
            return ReplayEnd("differs", f"the call failed with {was}, and now with {own.type}: {own.message}", False)
        return ReplayEnd("failed", said)

    # where this run differs from one that goes on

    def _start_all(self) -> None:
        if self._pending:
            raise _Stands([_wanted(operation) for operation in self._pending.values()])

    def _give_out(self, operation: Awaited, entry: JournalEntry) -> None:
        self._told(entry)
        super()._give_out(operation, entry)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._told(JournalEntry(order=0, place="", kind="cancel"))
        super()._end(task)

    def _tear_down(self, task: asyncio.Task[Any]) -> None:
        if task.done() and not task.cancelled():
            self.raised = task.exception()
        # before its tasks are cancelled: then nothing stands anywhere any more
        if not task.done():
            self._look(_standing([one for one in self._loop.tasks if not one.done()]))
        elif self.raised is not None:
            self._look(list(traceback.walk_tb(self.raised.__traceback__)))
        super()._tear_down(task)


def last_of_users(frames: Frames) -> int:
    """The index of the innermost frame that is not bema's; 0 where all are."""
    users = (at for at, (frame, _) in enumerate(frames) if not frame.f_code.co_filename.startswith(_OURS))
    return max(users, default=0)


def _standing(tasks: list[asyncio.Task[Any]]) -> Frames:
    """The frames of the first task that itself waits for its call; others wait for tasks."""
    chains = [[(frame, frame.f_lineno) for frame in _suspended(task.get_coro())] for task in tasks]
    waits = (chain for chain in chains if chain and chain[-1][0].f_code.co_filename.startswith(_OURS))
    return next(waits, chains[0] if chains else [])


def _suspended(awaited: Any) -> Iterator[FrameType]:
    while awaited is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(awaited, f"{kind}_frame")), None)
        if kind is None or (frame := getattr(awaited, f"{kind}_frame")) is None:
            return
        yield frame
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


def _wanted(operation: Awaited) -> str:
    prompt = "" if operation.wait is None else operation.wait.prompt
    return f"{operation.shown}: {prompt}" if prompt else operation.shown


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _shown(payload: bytes) -> str:
    return repr(codecs.unpack(payload)) if payload else "nothing"

"""Durable calls as they are kept: the record of one, its states, and the only moves between them.

Laws: `MOVES` is the table of the states, and `moved` the one place that makes a move. A record that is done, failed or
cancelled never changes again; one that is paused waits for a person, and nothing drops it. Instants are microseconds UTC.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from bema.core.durable import Retry
from bema.core.errors import Conflict
from bema.core.redaction import hides


class DurableState(enum.StrEnum):
    """Where a durable call is."""

    QUEUED = "queued"  # it may run when there is room, and its time has come
    RUNNING = "running"
    SLEEPING = "sleeping"  # no process holds anything of it until it is due
    ASKING = "asking"  # the same, until somebody answers or signals
    PAUSED = "paused"  # its retries are exhausted, or its history and its code disagree
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (DurableState.DONE, DurableState.FAILED, DurableState.CANCELLED)


_ENDS = frozenset({DurableState.DONE, DurableState.FAILED, DurableState.CANCELLED})
MOVES: Final[Mapping[DurableState, frozenset[DurableState]]] = {
    DurableState.QUEUED: frozenset({DurableState.RUNNING, DurableState.PAUSED, DurableState.CANCELLED}),
    DurableState.RUNNING: _ENDS
    | {DurableState.QUEUED, DurableState.SLEEPING, DurableState.ASKING, DurableState.PAUSED},
    DurableState.SLEEPING: frozenset(
        {DurableState.QUEUED, DurableState.RUNNING, DurableState.PAUSED, DurableState.CANCELLED}
    ),
    DurableState.ASKING: frozenset(
        {DurableState.QUEUED, DurableState.RUNNING, DurableState.PAUSED, DurableState.CANCELLED}
    ),
    DurableState.PAUSED: frozenset({DurableState.QUEUED, DurableState.CANCELLED}),
    DurableState.DONE: frozenset(),
    DurableState.FAILED: frozenset({DurableState.QUEUED}),  # by a restart, which a person asked for
    DurableState.CANCELLED: frozenset(),
}


class CallWait(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a call waits for: a time, an answer, a signal, or the next try of a step. `place` is where in its code."""

    place: str
    kind: str
    name: str = ""
    due: int = 0
    since: int = 0  # the first try of a step
    tries: int = 0
    prompt: str = ""
    answer: dict[str, Any] | None = None  # the JSON Schema of what is asked for


class CallRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One durable call. Arguments, result and steps lie beside it: a list of calls reads none of them.

    - `fence`: the number of the claim that may write; each claim takes the next one.
    - `key`: what makes a repetition of the request the same call, within its route.
    - `due`: not before this instant; `waits`: what a suspended call waits for; `why`: why it is paused or has failed.
    - `retry`: of an endpoint that is not durable, and whose call is one step: how that is tried again.
    - `cancelling`: somebody asked for its end, which its handler may still have to come to.
    """

    id: str
    route: str
    version: str = ""
    state: DurableState = DurableState.QUEUED
    created: int
    due: int = 0
    attempts: int = 0
    fence: int = 0
    steps: int = 0
    key: str = ""
    parent: str = ""
    principal: str = ""
    group: str = ""  # calls of one group run one after the other
    priority: int = 0
    retry: Retry | None = None
    metadata: dict[str, str] = {}
    waits: tuple[CallWait, ...] = ()
    cancelling: bool = False
    code: str = ""
    why: str = ""
    ended: int = 0
    __repr__ = hides("metadata")


def moved(record: CallRecord, state: DurableState, **changes: Any) -> CallRecord:
    """The record in another state; `Conflict` (code `bad_move`) where no such move is in the table."""
    if state not in MOVES[record.state]:
        raise Conflict(f"call {record.id} is {record.state}, and cannot become {state}", code="bad_move")
    return msgspec.structs.replace(record, state=state, **changes)

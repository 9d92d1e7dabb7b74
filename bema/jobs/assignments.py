"""Assignments: what the owner of durable calls gives a worker to do, and tells it meanwhile. Plain data: it travels.

Law: an assignment holds all that a run needs, as it was when its call was claimed. The worker asks for nothing more.
"""

from __future__ import annotations

import msgspec

from bema.jobs.calls import CallRecord
from bema.jobs.journal import JournalEntry


class Offered(msgspec.Struct, frozen=True, kw_only=True, tag="offered"):
    """An answer or a signal for a call that the worker runs. `number` is how the worker tells what became of it."""

    call: str
    number: int
    kind: str
    name: str
    payload: bytes
    place: str = ""
    key: str = ""


class Assignment(msgspec.Struct, frozen=True, kw_only=True, tag="assignment"):
    """A claimed call: its record with the fence, encoded arguments, journal, signals that were not taken yet, and what it was woken for."""

    record: CallRecord
    arguments: bytes
    entries: list[JournalEntry] = []
    signals: list[tuple[str, str, bytes]] = []  # key, name, payload
    offers: list[Offered] = []  # told apart, they would find that it waits for them, and was put away


class Joined(msgspec.Struct, frozen=True, kw_only=True, tag="joined"):
    """The first word to a worker: the number of its session, and the seconds of silence that end it."""

    session: int
    lease: float


class CancelAsked(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """Somebody asked for the end of a call."""

    call: str


Task = Joined | Assignment | Offered | CancelAsked

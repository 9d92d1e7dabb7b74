"""Awaited: what the handler of a durable call waits for, and what comes of it, from its own work or from outside.

Law: nothing here refers to itself once it is over: a call makes many of these, and the collector of cycles is to find none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from bema.core.durable import Retry
from bema.core.errors import BemaError
from bema.jobs.calls import CallWait
from bema.jobs.steps import Step
from bema.wire.values import codecs

_ANYTHING: Final = codecs.decoder(Any)


class StepWork(NamedTuple):
    """What a step does, and how it is tried again."""

    step: Step
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    retry: Retry | None


class Awaited:
    """Something that the handler waits for, and what it needs to come to its end."""

    __slots__ = ("decode", "digest", "elsewhere", "future", "kind", "name", "place", "running", "wait", "work")

    def __init__(self, place: str, kind: str, name: str, digest: str, future: asyncio.Future[Any]) -> None:
        self.place = place
        self.kind = kind
        self.name = name
        self.digest = digest
        self.future = future
        self.decode: Callable[[bytes], Any] = _ANYTHING
        self.elsewhere = False  # another call does it
        self.wait: CallWait | None = None  # what is kept of it while the call is suspended
        self.work: StepWork | None = None
        self.running: asyncio.Future[Any] | None = None

    @property
    def shown(self) -> str:
        return f"{self.kind} {self.place} {self.name}".rstrip()


class Incoming:
    """An answer or a signal on its way to the place in a handler that waits for it; `taken` is done when it was written."""

    def __init__(
        self, kind: str, name: str, payload: bytes, *, place: str = "", key: str = "", number: int = 0
    ) -> None:
        self.kind = kind
        self.name = name
        self.payload = payload
        self.place = place
        self.key = key  # under which a signal is kept until it is taken
        self.number = number  # under which the owner of the call knows it, where that is another process
        self.seen = False  # by a run that had come to where it waits, and did not wait for this
        self.taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # who offered it may have left, or was told of another failure: asyncio would report this one as nobody's
        self.taken.add_done_callback(lambda future: future.cancelled() or future.exception())

    def fits(self, operation: Awaited) -> bool:
        named = self.kind != "signal" or self.name == operation.name
        return self.kind == operation.kind and named and self.place in ("", operation.place)

    def take(self) -> None:
        if not self.taken.done():
            self.taken.set_result(None)

    def refuse(self, error: BemaError) -> None:
        if not self.taken.done():
            self.taken.set_exception(error)


class Completion(NamedTuple):
    operation: Awaited
    value: bytes = b""
    failure: bytes = b""
    tries: int = 1
    offer: Incoming | None = None

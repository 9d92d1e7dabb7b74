"""The engine on disk: one file, one connection, one thread, and group commit.

Laws: what changes something is done in the order it was asked for; who reads finds whatever was asked before, and may find what
was asked meanwhile. What is asked while a commit runs is committed together by the next one, and everybody is answered after
the commit that covers them. The hand-over is what costs, so there is one of it each way per
group, however many callers are in it. A caller that gives up changes nothing: what it asked for is done and shown.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from bema.core.errors import BemaError, Refused
from bema.core.limits import DEFAULTS, Limits
from bema.core.settings import PartSettings
from bema.state import layout
from bema.state.engine import Entry, Mutation, Older, StateBounds, StateWatch, check_key
from bema.state.feed import Feed
from bema.state.file import Committed, SqliteFile

T = TypeVar("T")
_TOGETHER = 4096
"""Callers in one group, at most: who comes first should not wait for everybody."""


class _Asked(NamedTuple):
    """Mutations to apply, or other work to do, and who waits for it."""

    what: Sequence[Mutation] | Callable[[], Any]
    answer: asyncio.Future[Any]
    reads: bool


# who waits is told something, or waits for mutations or other work
_Answered = tuple[asyncio.Future[Any], Any]
_Writing = tuple[Sequence[Mutation], asyncio.Future[Any]]
_Working = tuple[Callable[[], Any], asyncio.Future[Any]]


class _Failure(NamedTuple):
    """An outcome that is raised where it is awaited."""

    error: BaseException


class SqliteEngine:
    """Bound to the event loop that opened it."""

    @classmethod
    async def open(cls, settings: PartSettings, name: str = "state.sqlite", older: Older | None = None) -> SqliteEngine:
        return await cls.at(settings.state / name, settings.limits, older)

    @classmethod
    def check(cls, settings: PartSettings, name: str = "state.sqlite") -> None:
        layout.check(settings.state / name)

    @classmethod
    async def at(cls, path: Path, limits: Limits = DEFAULTS, older: Older | None = None) -> SqliteEngine:
        """The state in the file at `path`, whose folder is there."""
        engine = cls(path, limits, older)
        try:
            engine._feed = Feed(await engine._do(engine._file.open))
        except BaseException:
            engine._queue.put(None)
            raise
        return engine

    def __init__(self, path: Path, limits: Limits, older: Older | None) -> None:
        self._bounds = StateBounds.of(limits)
        self._file = SqliteFile(path, older)
        self._feed = Feed()
        self._loop = asyncio.get_running_loop()
        self._asked: list[_Asked] = []
        self._busy = False  # a group is with the thread, or is about to be
        self._closed = False
        self._queue: SimpleQueue[list[_Asked] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"state {path.name}", daemon=True)
        self._thread.start()

    @property
    def revision(self) -> int:
        return self._feed.revision

    async def apply(self, mutations: Sequence[Mutation]) -> int:
        self._bounds.check(mutations)
        revision: int = await self._ask(mutations)
        return revision

    async def get(self, key: str) -> Entry | None:
        check_key(key)
        return await self._look(partial(self._file.get, key))

    async def scan(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[Entry]:
        return await self._look(partial(self._file.scan, prefix, after, limit))

    async def scan_back(self, prefix: str, before: str = "", limit: int = 1000) -> list[Entry]:
        return await self._look(partial(self._file.scan_back, prefix, before, limit))

    def watch(self, from_revision: int, prefix: str = "") -> StateWatch:
        self._must_be_open()
        return self._feed.watch(from_revision, prefix)

    async def put_blob(self, content: bytes) -> str:
        self._bounds.check_blob(content)
        return await self._do(partial(self._file.put_blob, content))

    async def blob(self, digest: str) -> bytes:
        return await self._look(partial(self._file.blob, digest))

    async def blobs(self) -> list[str]:
        return await self._look(self._file.blobs)

    async def drop_blobs(self, digests: Iterable[str]) -> None:
        await self._do(partial(self._file.drop_blobs, tuple(digests)))

    async def close(self) -> None:
        if self._closed:
            return
        closing = self._ask(self._file.close)
        self._closed = True
        try:
            await closing
        finally:
            self._feed.close()

    # on the loop

    async def _do(self, work: Callable[[], T]) -> T:
        done: T = await self._ask(work)
        return done

    async def _look(self, work: Callable[[], T]) -> T:
        found: T = await self._ask(work, reads=True)
        return found

    def _ask(self, what: Sequence[Mutation] | Callable[[], Any], *, reads: bool = False) -> asyncio.Future[Any]:
        self._must_be_open()
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._asked.append(_Asked(what, answer, reads))
        # one group at a time: what is asked while it is committed gathers here, and shares the next
        # sync
        if not self._busy:
            self._busy = True
            # at the end of this turn: all who ask within it share a commit
            self._loop.call_soon(self._hand_over)
        return answer

    def _hand_over(self) -> None:
        self._queue.put(self._asked[:_TOGETHER])
        del self._asked[:_TOGETHER]

    def _take_back(self, answered: list[_Answered], committed: list[Committed]) -> None:
        # shown before anybody is answered: who was answered sees what it did
        for one in committed:
            self._feed.publish(one.changes, one.revision)
        for answer, outcome in answered:
            # its caller was cancelled: what it asked for is done all the same, and was shown
            if answer.done():
                continue
            if isinstance(outcome, _Failure):
                answer.set_exception(outcome.error)
            else:
                answer.set_result(outcome)
        self._busy = bool(self._asked)
        if self._busy:
            self._hand_over()
        elif self._closed:
            # the thread goes when nothing is asked any more: what was begun is finished first
            self._queue.put(None)

    def _must_be_open(self) -> None:
        if self._closed:
            raise Refused("the state is closed", code="state_failed")

    # in the thread

    def _work(self) -> None:
        while (group := self._queue.get()) is not None:
            answered: list[_Answered] = []
            committed: list[Committed] = []
            writing: list[_Writing] = []
            reading: list[_Working] = []
            for what, answer, reads in group:
                if not callable(what):
                    writing.append((what, answer))
                elif reads:
                    reading.append((what, answer))
                else:  # by itself, in its place among those that write
                    self._do_all(writing, reading, answered, committed)
                    writing, reading = [], []
                    answered.append((answer, _outcome(what)))
            self._do_all(writing, reading, answered, committed)
            try:
                self._loop.call_soon_threadsafe(self._take_back, answered, committed)
            except RuntimeError:  # the loop was closed without us: nobody waits any more
                break
        self._file.close()

    def _do_all(
        self, writing: list[_Writing], reading: list[_Working], answered: list[_Answered], committed: list[Committed]
    ) -> None:
        """One commit, then whoever reads: who reads after a write of its own finds it, and nobody splits the commit of others."""
        if writing:
            done = _outcome(partial(self._file.apply, [mutations for mutations, _ in writing]))
            if isinstance(done, _Failure):
                answered += [(answer, done) for _, answer in writing]
            else:
                committed.append(done)
                answered += [
                    (answer, _Failure(outcome) if isinstance(outcome, BemaError) else outcome)
                    for (_, answer), outcome in zip(writing, done.outcomes, strict=True)
                ]
        answered += [(answer, _outcome(work)) for work, answer in reading]


def _outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except BaseException as error:  # noqa: BLE001 - the edge of the thread: whoever waits hears of it
        return _Failure(error)

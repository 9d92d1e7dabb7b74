"""The last changes, and who watches them.

Law: memory is bounded. Only so many changes are kept, and only so many wait for one watcher: whoever asks for older ones,
or takes too long, is told `Missed` and never sees a gap that it does not know of.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Sequence
from itertools import islice

from bema.state.engine import Missed, StateChange, StateWatch

KEPT = 8192
"""Changes that are kept, and that may wait for one watcher."""
KEPT_BYTES = 4 * 1024 * 1024
"""Bytes of values that are kept."""


class Feed:
    """What an engine publishes its changes to, once they are durable."""

    def __init__(self, revision: int = 0) -> None:
        self.revision = revision
        self._compacted = revision  # changes up to this one are not kept
        self._changes: deque[StateChange] = deque()
        self._bytes = 0
        self._watches: set[_FeedWatch] = set()

    def publish(self, changes: Sequence[StateChange], revision: int) -> None:
        """Show changes, in order; `revision` is that of the last mutation, which may have changed nothing."""
        self._changes.extend(changes)
        self._bytes += sum([len(change.value) for change in changes if change.value])
        for watch in self._watches:
            for change in changes:
                watch.put(change)
        # after the changes: who asks for it and watches from there misses none
        self.revision = revision
        self._compact()
        # woken once per group, not per change
        for watch in tuple(self._watches):
            watch.wake()

    def watch(self, from_revision: int, prefix: str) -> StateWatch:
        watch = _FeedWatch(self, prefix)
        # a gap that is told of can be mended by a scan; one that is not told of cannot
        if from_revision < self._compacted:
            watch.miss()
        else:
            first = bisect_right(self._changes, from_revision, key=lambda change: change.revision)
            for change in islice(self._changes, first, None):
                watch.put(change)
        self._watches.add(watch)
        return watch

    def drop(self, watch: _FeedWatch) -> None:
        self._watches.discard(watch)

    def close(self) -> None:
        """Watchers get what waits for them, then their end."""
        for watch in tuple(self._watches):
            watch.close()

    def _compact(self) -> None:
        while len(self._changes) > KEPT or self._bytes > KEPT_BYTES:
            gone = self._changes.popleft()
            self._bytes -= len(gone.value or b"")
            self._compacted = gone.revision


class _FeedWatch:
    """One watcher's queue."""

    def __init__(self, feed: Feed, prefix: str) -> None:
        self._feed = feed
        self._prefix = prefix
        self._waiting: deque[StateChange] = deque()
        self._bytes = 0
        self._missed = False
        self._closed = False
        self._wakers: list[asyncio.Future[None]] = []

    def put(self, change: StateChange) -> None:
        if not change.key.startswith(self._prefix) or self._missed:
            return
        self._waiting.append(change)
        self._bytes += len(change.value or b"")
        if len(self._waiting) > KEPT or self._bytes > KEPT_BYTES:
            self.miss()

    def miss(self) -> None:
        # nothing is kept for it from here on: a watcher that is gone for good must cost nothing
        self._missed = True
        self._waiting.clear()

    def wake(self) -> None:
        if self._waiting or self._missed or self._closed:
            for waker in self._wakers:
                if not waker.done():
                    waker.set_result(None)
            self._wakers.clear()

    def take(self) -> list[StateChange]:
        if self._missed:
            raise Missed("changes were missed; scan again and watch from there")
        taken = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return taken

    def __aiter__(self) -> AsyncIterator[StateChange]:
        return self

    async def __anext__(self) -> StateChange:
        while not self._waiting and not self._missed and not self._closed:
            waker = asyncio.get_running_loop().create_future()
            self._wakers.append(waker)
            try:
                await waker
            finally:
                with contextlib.suppress(ValueError):
                    self._wakers.remove(waker)
        if self._missed:
            raise Missed("changes were missed; scan again and watch from there")
        if not self._waiting:
            raise StopAsyncIteration
        change = self._waiting.popleft()
        self._bytes -= len(change.value or b"")
        return change

    def close(self) -> None:
        self._closed = True
        self._feed.drop(self)
        self.wake()

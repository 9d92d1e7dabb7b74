"""Streams of payloads over a connection, either way: what may be sent, and what came and is not yet read.

Law: a sender holds at most a window of unread bytes per stream, and a number of unread items; what all streams of a
connection have unread is bounded too; a floor per stream keeps a slow reader from stopping its neighbours. Bytes are given back when they are
read, not when they arrive. No task switch per item: items of one turn travel and are queued as one list, but for the first of
a stream, which somebody waits for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

from bema.core.errors import ProtocolError
from bema.runtime.rpc.connection import Connection
from bema.wire.rpc import frames
from bema.wire.rpc.calls import FLOOR
from bema.wire.values import codecs
from bema.wire.values.codecs import Decode

BUDGET: Final = FLOOR  # bytes after which the other calls of the loop get a turn, each item taken for `PER_ITEM` more
PER_ITEM: Final = 100


class Outflow:
    """The sending end of one stream."""

    # Items are pushed on a budget, one per turn of the loop, and counted against the stream's window when the budget is
    # spent. So credit may come for items that are not counted yet, at most for a budget's worth of them.
    __slots__ = (
        "_budget",
        "_conn",
        "_counted",
        "_full",
        "_gate",
        "_given_back",
        "_ident",
        "_items",
        "_kind",
        "_left",
        "_out",
        "_portion",
        "_pushed",
        "_window",
    )

    def __init__(self, conn: Connection, ident: int, kind: int) -> None:
        self._conn = conn
        self._ident = ident
        self._kind = kind
        self._full = conn.full  # kept here: it is asked for at every item, and a connection has many attributes
        self._window = self._left = conn.sizes.stream
        self._portion = min(BUDGET, conn.largest)  # so that what is too large spends it, and is looked at
        self._budget = 0  # the first item finds it spent
        self._items: list[bytes] = []
        self._out: list[Any] | None = None  # the connection's batch that `_items` went into
        self._counted = 0  # items pushed on this budget into batches before that
        self._pushed = 0  # items pushed on the budgets before
        self._given_back = 0  # bytes
        self._gate: asyncio.Future[None] | None = None

    def push(self, payload: bytes) -> bool:
        """Send one item this turn. True: call `turn()` before the next one."""
        size = len(payload)
        self._budget = budget = self._budget - size - PER_ITEM
        if budget <= 0:
            return self._spend(payload, size)
        conn = self._conn
        # the batch that our items went into has left: they get a new message in the next one
        if self._out is not conn.out:
            self._begin()
        self._items.append(payload)
        conn.window -= size
        conn.size = size = conn.size + size
        if size >= self._full:
            conn.flush()
        return conn.paused is not None

    def _begin(self) -> None:
        conn = self._conn
        self._counted += len(self._items)
        self._items = []
        conn.put(self._ident, self._kind, self._items)
        self._out = conn.out

    def _spend(self, payload: bytes, size: int) -> bool:
        conn, first = self._conn, self._out is None
        count = self._counted + len(self._items) + 1
        spent = self._portion - self._budget - PER_ITEM * count if not first else size
        if size >= conn.sizes.large:
            conn.put_large(self._ident, self._kind, [b""], payload)
            self._out = []
        else:
            if self._out is not conn.out:
                self._begin()
            self._items.append(payload)
            conn.size += size
            # the first item leaves at once: somebody waits for it, and the time to it is what is
            # measured
            if first:
                conn.hurry()
            if conn.size >= conn.full:
                conn.flush()
        self._pushed += count
        self._counted = -len(self._items)
        self._budget = self._portion
        conn.window -= size
        self._left -= spent
        return not first or conn.paused is not None or not self._has_room()

    async def turn(self) -> None:
        """Let other tasks run, then wait until the reader and the socket have room, or the connection is gone."""
        conn = self._conn
        # also where there is room: a handler that yields without waiting would hold the loop for
        # itself
        await asyncio.sleep(0)
        while not conn.closed:
            if conn.paused is not None:
                await conn.writable()
            elif self._has_room():
                return
            else:
                await self._wait()

    def _has_room(self) -> bool:
        left = self._left
        unread = self._window - left
        # credits count bytes; of small items the reader holds many in few, as many as those of their mean size would be
        if unread * self._pushed > self._conn.sizes.limits.rpc_stream_items * (self._given_back + unread):
            return False
        return left > 0 and (self._conn.window > 0 or unread < FLOOR)

    async def _wait(self) -> None:
        conn = self._conn
        self._gate = conn.loop.create_future()
        conn.blocked.add(self)
        try:
            await self._gate
        finally:
            conn.blocked.discard(self)
            self._gate = None

    def credited(self, size: int) -> None:
        # capped: a peer that gives back more than it was sent gets no larger window by it
        self._left = min(self._left + size, self._window + BUDGET)
        self._given_back += size
        self.wake()

    def wake(self) -> None:
        if self._gate is not None and not self._gate.done():
            self._gate.set_result(None)


class Inflow:
    """The receiving end of one stream: a queue of batches and how it ended."""

    __slots__ = (
        "_batches",
        "_conn",
        "_eaten",
        "_given",
        "_held",
        "_ident",
        "_most",
        "_outcome",
        "_waiter",
        "began",
        "deadline",
        "ended",
    )

    def __init__(self, conn: Connection, ident: int, deadline: float = float("inf")) -> None:
        self._conn = conn
        self._ident = ident
        self._batches: deque[tuple[list[bytes], int]] = deque()
        self._held = 0  # bytes that came and were not given back
        self._given = 0  # of these, bytes of the batch that is being read
        self._eaten = 0  # of these, bytes that were read
        self._waiter: asyncio.Future[None] | None = None
        self._outcome: BaseException | None = None
        self.began = False
        self.ended = False
        self.deadline = deadline
        # before that the sender has seen that there is no room; one that reads no windows fills the protocol's
        window = max(frames.STREAM_WINDOW, conn.sizes.limits.rpc_stream_window)
        self._most = window + BUDGET + conn.sizes.limits.rpc_message

    def take(self, payloads: Any) -> None:
        """Queue items that have come; `ProtocolError` where the sender went beyond its window."""
        # the usual item of a slow stream, without a call of a function
        if type(payloads) is list and len(payloads) == 1 and type(payloads[0]) is bytes:
            size = len(payloads[0])
        else:
            size = frames.payload_size(payloads)
        self._held = held = self._held + size
        if held > self._most:
            raise ProtocolError(f"a stream has {held} unread bytes, which is beyond its window")
        self.began = True
        self._batches.append((payloads, size))
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def finish(self, outcome: BaseException | None = None, *, at_once: bool = False) -> None:
        """End the stream, well or with the error `outcome`. What came before is still read, unless `at_once` is set."""
        if self.ended:
            return
        self.ended = True
        self._outcome = outcome
        if at_once:
            self._batches.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def poll(self) -> list[bytes] | None:
        """The next batch, an empty one at a good end, or None while there is nothing to read; raises the error of a bad end.

        The batch before counts as read from here on.
        """
        if self._given:
            self._eaten += self._given
            self._given = 0
            if self._eaten >= self._conn.sizes.grant and not self.ended:
                self._give_back()
        if self._batches:
            payloads, self._given = self._batches.popleft()
            return payloads
        if not self.ended:
            return None
        if self._outcome is not None:
            raise self._outcome
        return []

    def arrival(self) -> asyncio.Future[None]:
        """A future that is done when there is something to poll."""
        # before it waits: a sender at its floor sends nothing more until it hears of room
        if self._eaten >= FLOOR // 2:
            self._give_back()
        self._waiter = self._conn.loop.create_future()
        return self._waiter

    async def items(self, decode: Decode) -> AsyncIterator[Any]:
        """The decoded items in order; raises the error of a bad end."""
        while True:
            payloads = self.poll()
            if payloads is None:
                await self.arrival()
                continue
            if not payloads:
                return
            for payload in payloads:
                try:
                    item = decode(payload)
                except codecs.UNFIT as error:
                    raise codecs.refusal(error, "an item of the stream that was sent") from error
                yield item

    def _give_back(self) -> None:
        # a full portion while there is more to read; any worth of it before waiting, for the sender may be at its floor
        if not self._conn.closed:
            self._conn.put(self._ident, frames.CREDIT, self._eaten)
            self._held -= self._eaten
            self._eaten = 0

    def close(self) -> None:
        """Drop what is held and give its bytes back, since nobody reads on."""
        self._batches.clear()
        # to the connection, whose window the streams that go on share
        self._conn.release(self._held)
        self._held = self._given = self._eaten = 0

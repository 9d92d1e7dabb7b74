"""CallMetrics: the counters of the calls that a process answers.

Laws: a process that does not count pays nothing: counting is a subclass of the connection, chosen when a server accepts.
Only the event loop changes a counter, and another thread gets copies. A call counts once, under its outcome.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Coroutine
from time import monotonic
from typing import Any, Final

from bema.core.errors import BemaError, RemoteError
from bema.runtime.rpc.routes import Route, RouteTable
from bema.runtime.rpc.server_call import GIVEN_UP, ServerCall
from bema.runtime.rpc.server_connection import ServerConnection

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the durations' histogram, in seconds."""


class CallCounter:
    """The counters of one endpoint. `buckets` counts durations by `BOUNDS`, the longer ones last."""

    __slots__ = ("buckets", "cancelled", "errors", "in_flight", "ok", "seconds")

    def __init__(self) -> None:
        self.in_flight = 0
        self.ok = 0
        self.cancelled = 0
        self.errors: Counter[str] = Counter()  # by code
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    @property
    def ended(self) -> int:
        return self.ok + self.cancelled + self.errors.total()

    def copied(self) -> CallCounter:
        """A copy as of now, for another thread to read while this one goes on counting."""
        copy = CallCounter()
        copy.in_flight, copy.ok, copy.cancelled, copy.seconds = self.in_flight, self.ok, self.cancelled, self.seconds
        copy.errors.update(dict(self.errors))
        copy.buckets = self.buckets[:]
        return copy


class CallMetrics:
    """Counters by route, and by code of what was refused before it ran."""

    def __init__(self) -> None:
        self.counters: dict[str, CallCounter] = {}
        self.refused: Counter[str] = Counter()

    def connection(self, loop: asyncio.AbstractEventLoop, server: RouteTable[ServerConnection]) -> ServerConnection:
        """A connection that counts its calls here; a server makes one for each peer."""
        return _CountedConnection(loop, server, self)

    def of(self, route: str) -> CallCounter:
        counter = self.counters.get(route)
        if counter is None:
            counter = self.counters[route] = CallCounter()
        return counter

    def seen(self, route: str) -> CallCounter:
        """A copy of a counter, from any thread. Looking makes no counter, since only the event loop may change the table."""
        counter = self.counters.get(route)
        return CallCounter() if counter is None else counter.copied()


_unary, _stream, _done = ServerConnection._unary, ServerConnection._stream, ServerConnection._done


class _CountedConnection(ServerConnection):
    def __init__(
        self, loop: asyncio.AbstractEventLoop, server: RouteTable[ServerConnection], metrics: CallMetrics
    ) -> None:
        super().__init__(loop, server)
        self._metrics = metrics
        self._counters = metrics.counters
        self._running: dict[int, tuple[CallCounter, float]] = {}
        self._codes: dict[int, str] = {}

    # the drivers are asked for when a call is admitted: what waits in the queue is not in flight yet
    def _unary(self, call: ServerCall, route: Route, payload: bytes) -> Coroutine[Any, Any, None]:
        counter = self._counters.get(call.route) or self._metrics.of(call.route)
        counter.in_flight += 1
        self._running[call.ident] = (counter, monotonic())
        return _unary(self, call, route, payload)

    def _stream(self, call: ServerCall, route: Route, payload: bytes) -> Coroutine[Any, Any, None]:
        counter = self._counters.get(call.route) or self._metrics.of(call.route)
        counter.in_flight += 1
        self._running[call.ident] = (counter, monotonic())
        return _stream(self, call, route, payload)

    def _failed(self, call: ServerCall, error: BaseException) -> None:
        self._codes[call.ident] = error.code if isinstance(error, BemaError) else RemoteError.code
        super()._failed(call, error)

    def _done(self, call: ServerCall) -> None:
        ident = call.ident
        _done(self, call)
        entry = self._running.pop(ident, None)
        if entry is None:  # it ended in the queue
            counter = self._metrics.of(call.route)
        else:
            counter, began = entry
            seconds = monotonic() - began
            counter.in_flight -= 1
            counter.seconds += seconds
            counter.buckets[bisect_left(BOUNDS, seconds)] += 1
        if call.reason is None and not self._codes:
            counter.ok += 1
        else:
            self._count_end(call, counter)

    def _count_end(self, call: ServerCall, counter: CallCounter) -> None:
        code = self._codes.pop(call.ident, None)
        if call.reason is GIVEN_UP:
            counter.cancelled += 1
        elif code is None:
            counter.ok += 1
        else:
            counter.errors[code] += 1

    def _refuse(self, ident: int, error: BemaError) -> None:
        self._metrics.refused[error.code] += 1
        super()._refuse(ident, error)

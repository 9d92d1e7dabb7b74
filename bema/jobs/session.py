"""Session: a worker in another process, as the owner of the calls sees it, for as long as that process is heard of.

Laws: a session whose lease ran out is over for good, whatever its process still sends: what it ran is queued again under the next
fence, and nothing that it writes under an older one is taken. What is told to a worker waits in a queue, whose length is bounded
by the calls that it may run.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Mapping
from time import monotonic
from types import MappingProxyType

import msgspec

from bema.core.durable import Queue
from bema.core.errors import BemaError, Disconnected
from bema.jobs.assignments import Assignment, CancelAsked, Offered, Task
from bema.jobs.awaited import Incoming
from bema.jobs.calls import CallRecord


class WorkerSession:
    """One worker of `routes`. `tasks` is what it is to be told, in order, and None at its end."""

    def __init__(
        self,
        number: int,
        version: str,
        routes: Collection[str],
        lease: float,
        queues: Mapping[str, Queue] = MappingProxyType({}),
    ) -> None:
        self.number = number
        self.version = version
        self.lease = lease
        self.tasks: asyncio.Queue[Task | None] = asyncio.Queue()
        self._routes = frozenset(routes)
        self._queues = queues
        self._until = monotonic() + lease
        self._lost = False
        self._runs: dict[str, asyncio.Future[None]] = {}
        self._offers: dict[int, tuple[str, Incoming]] = {}
        self._numbers = itertools.count(1)

    # its lease

    def renew(self) -> None:
        """Its process was heard of."""
        self._until = monotonic() + self.lease

    def left(self) -> float:
        """Seconds until the session is over, if nothing is heard."""
        return self._until - monotonic()

    def lose(self) -> None:
        """Nothing more comes of what it runs: each run ends with `Disconnected`."""
        self._lost = True
        for run in self._runs.values():
            if not run.done():
                run.set_exception(self._gone())

    def _gone(self) -> Disconnected:
        return Disconnected(f"the worker {self.number} is gone")

    # as a worker

    def serves(self, record: CallRecord) -> bool:
        # a call stays on the version that it began on
        return record.route in self._routes and record.version in ("", self.version)

    def queue_of(self, route: str) -> Queue | None:
        return self._queues.get(route)

    async def run(self, assignment: Assignment, offers: list[Incoming]) -> None:
        id = assignment.record.id
        if self._lost:  # while the call was claimed for it: nobody would end this run
            raise self._gone()
        over = self._runs[id] = asyncio.get_running_loop().create_future()
        known = {key for key, _, _ in assignment.signals}
        offered = [self._told(id, offer) for offer in offers if offer.key not in known]
        self.tasks.put_nowait(msgspec.structs.replace(assignment, offers=offered))
        try:
            await over
        finally:
            del self._runs[id]
            mine = [number for number, (call, _) in self._offers.items() if call == id]
            offers[:] = [self._offers.pop(number)[1] for number in mine]

    def offer(self, id: str, offer: Incoming) -> bool:
        if id not in self._runs:
            return False
        self.tasks.put_nowait(self._told(id, offer))
        return True

    def _told(self, id: str, offer: Incoming) -> Offered:
        number = next(self._numbers)
        self._offers[number] = (id, offer)
        return Offered(
            call=id,
            number=number,
            kind=offer.kind,
            name=offer.name,
            payload=offer.payload,
            place=offer.place,
            key=offer.key,
        )

    def cancel(self, id: str) -> bool:
        if id not in self._runs:
            return False
        self.tasks.put_nowait(CancelAsked(call=id))
        return True

    # what it tells

    def offered(self, number: int) -> Incoming | None:
        """What was offered under that number to a call that runs."""
        return None if (found := self._offers.get(number)) is None else found[1]

    def refused(self, number: int, error: BemaError) -> None:
        """What was offered does not fit what the call waits for."""
        if (found := self._offers.pop(number, None)) is not None:
            found[1].refuse(error)

    def over(self, id: str, seen: Collection[int], error: BaseException | None) -> None:
        """A run is over, with `error` where it broke off; those offers were seen by it and not waited for."""
        for number in seen:
            if number in self._offers:
                self._offers[number][1].seen = True
        if (run := self._runs.get(id)) is not None and not run.done():
            if error is None:
                run.set_result(None)
            else:
                run.set_exception(error)

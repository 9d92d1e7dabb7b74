"""Admission: who waits for a place at a deployment's instances, in order of arrival.

Laws: nobody who comes later is given a place before one that waits and could take it. A line has an end: it is bounded, a wait
in it is, and what keeps the deployment from starting is told to all who wait. A place that is given up goes to the next at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bema.core.errors import BemaError, NotFound, Overloaded
from bema.core.limits import Limits
from bema.gateway.routing.activator import not_started
from bema.gateway.routing.choice import VERSION, Asked, InstanceRoute, Seat
from bema.gateway.routing.table import RoutingTable

__all__ = ["RequestAdmission"]

_PATIENCE = 2.0  # seconds more than a start may take: who asks for the start has the first word on why it failed


class _Line:
    """Those who wait for one deployment."""

    def __init__(self) -> None:
        self.waiting: dict[asyncio.Future[Seat], Asked] = {}
        self.leading: asyncio.Task[None] | None = None


class RequestAdmission:
    """`started` waits until the deployment has an instance.

    `queued` is told when somebody begins to wait, `emptied` when nobody does any more, or an instance that drains has no more in
    flight.
    """

    def __init__(self, table: RoutingTable, started: Callable[[str], Awaitable[InstanceRoute]], limits: Limits) -> None:
        self.queued: Callable[[], None] = lambda: None
        self.emptied: Callable[[], None] = lambda: None
        self._table = table
        self._started = started
        self._limits = limits
        self._lines: dict[str, _Line] = {}

    def waiting(self, deployment: str) -> int:
        line = self._lines.get(deployment)
        return 0 if line is None else len(line.waiting)

    def lines(self) -> dict[str, int]:
        """How many wait, by deployment."""
        return {deployment: len(line.waiting) for deployment, line in self._lines.items()}

    def take(self, deployment: str, asked: Asked) -> Seat | None:
        """A place that is free now, counted in; None where there is none, or where others wait."""
        if self._lines and deployment in self._lines:
            return None
        place = self._table.choose(deployment, asked)
        if place is not None:
            place.in_flight += 1
        return place

    def release(self, place: Seat) -> None:
        """Count a place out, and give it to who waits for it."""
        place.in_flight -= 1
        if not (place.open or place.in_flight):
            self.emptied()
        if self._lines:
            self._give(place.instance.deployment)

    async def wait(self, deployment: str, asked: Asked) -> Seat:
        """Wait for a place, and count it in; what it raises is the answer to the request.

        Raises:
            Overloaded: `http_waiters` requests wait for this deployment already, or no place was given up in time.
            NotFound: there is no such deployment, or no instance of the version that the request names.
            BemaError: the deployment is building, failed, or did not start in time, by the code.
        """
        line = self._lines.setdefault(deployment, _Line())
        # bounded per deployment: one that never starts must not hold every connection
        if len(line.waiting) >= self._limits.http_waiters:
            raise Overloaded(f"{len(line.waiting)} requests wait for this deployment", retry_after=1)
        given: asyncio.Future[Seat] = asyncio.get_running_loop().create_future()
        line.waiting[given] = asked
        if line.leading is None:
            line.leading = asyncio.create_task(self._lead(deployment, line), name=f"line of {deployment}")
        self._give(deployment)
        self.queued()
        taken = False
        try:
            async with asyncio.timeout(self._limits.start + _PATIENCE):
                place = await given
            taken = True
            return place
        except TimeoutError:
            if self._table.route(deployment) is None:
                raise not_started() from None
            raise Overloaded("every instance has as many requests as it takes", retry_after=1) from None
        finally:
            # given in the very turn in which the client left, or its time was over
            if not taken and given.done() and not given.cancelled() and given.exception() is None:
                self.release(given.result())
            self._leave(deployment, line, given)

    def _leave(self, deployment: str, line: _Line, given: asyncio.Future[Seat]) -> None:
        line.waiting.pop(given, None)
        if not line.waiting and self._lines.get(deployment) is line:
            # forgotten at once: who comes before the task has ended begins a line of his own
            del self._lines[deployment]
            if line.leading is not None:
                line.leading.cancel()
            self.emptied()

    async def _lead(self, deployment: str, line: _Line) -> None:
        """See to it that there is an instance for those who wait, for as long as there are any."""
        try:
            while True:
                if self._table.route(deployment) is None:
                    await self._started(deployment)
                self._give(deployment)
                self._end(line, lambda asked: self._unknown(deployment, asked))
                await self._table.turned(deployment)
        except BemaError as error:
            line.leading, refusal = None, error
            self._end(line, lambda asked: refusal)

    def _give(self, deployment: str) -> None:
        line = self._lines.get(deployment)
        for given, asked in tuple(line.waiting.items()) if line is not None else ():
            if not self._table.free(deployment):
                return
            if given.done():
                continue
            # who sticks to a version whose places are taken, or names one, lets others by
            if (place := self._table.choose(deployment, asked)) is not None:
                place.in_flight += 1
                given.set_result(place)

    def _end(self, line: _Line, why: Callable[[Asked], BemaError | None]) -> None:
        for given, asked in line.waiting.items():
            if not given.done() and (error := why(asked)) is not None:
                given.set_exception(error)

    def _unknown(self, deployment: str, asked: Asked) -> BemaError | None:
        """The answer to who names a version of which there is no instance; asked where there are others."""
        version = asked.ours.get(VERSION, b"").decode("latin-1")
        if not version or self._table.knows(deployment, version):
            return None
        return NotFound(
            f"no instance of version {version[:20]!r} runs",
            fix="Leave the header Bema-Version away, or name one that runs.",
        )

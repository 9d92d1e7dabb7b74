"""Resolver: an instance for a call, and a connection to it within the call's time.

Laws: the instances are those of an `Offer`. An instance's calls go to others of its component; where it is the only one,
they come back to it, except to the endpoint that it just answers: that would call itself without end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from bema.core.call import CURRENT
from bema.core.errors import BemaError, DeadlineExceeded, Unavailable
from bema.core.instance import Instance
from bema.runtime.discovery.discovery import InstanceSet, View, wait_for
from bema.runtime.rpc.absence import absence
from bema.runtime.rpc.client_connection import ClientConnection
from bema.runtime.rpc.connection import NEVER
from bema.runtime.rpc.offers import LaneChoice, Offer, answers, index_of
from bema.runtime.rpc.picker import NOTHING, OutgoingCall, picker
from bema.runtime.rpc.pool import ConnectionPool, Silent

_log = logging.getLogger("bema.client")
TAKEOVER = 0.5  # seconds; a record is read within milliseconds of its writing
_SILENCE = 1.0
"""Seconds of waiting after which that is said."""

Viewing = View | Callable[[], Awaitable[View]]


class Resolver:
    """Finds an instance of one endpoint. `skip` is the caller's own instance, `wait` the seconds to wait for the first.

    The own instance is passed over; with `alone`, only while there are others.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        view: Viewing,
        route: str,
        *,
        pick: str = "",
        skip: int | None = None,
        alone: bool = False,
        wait: float = 0.0,
        lanes: LaneChoice = LaneChoice(),  # noqa: B008 - a tuple
    ) -> None:
        self._pool = pool
        self._view = None if callable(view) else view
        self._open_view = view if callable(view) else None
        self._route = route
        self._name = route.rpartition(".")[2]
        self._pick = picker(pool.settings, pick)
        self._skip = skip
        self._alone = alone
        self._wait = wait
        self._lanes = lanes
        self._answering = InstanceSet() if self._view is None else index_of(self._view).offer(route, lanes)
        self._snapshot: tuple[Instance, ...] | None = None
        self._candidates: tuple[Instance, ...] = ()
        # what all of them do with calls of the endpoint: looked at with every call, so no method
        self.durable = self.resumable = False
        self._chosen: Instance | None = None  # by the last `usable` that found no connection
        self._only: ClientConnection | None = None  # to the one candidate of this snapshot
        self._told = False

    def instances(self) -> tuple[Instance, ...]:
        """The instances that a call could go to now."""
        # by identity: the set hands out the same tuple until one of its instances changes
        snapshot = self._answering.instances()
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._only = None
            told = [info for i in snapshot for info in i.endpoints if info.name == self._name]
            self.durable = bool(told) and all(info.durable for info in told)
            self.resumable = bool(told) and all(info.resumable for info in told)
            self._candidates = snapshot if self._skip is None else self._without_self(snapshot)
        return self._candidates

    def _without_self(self, snapshot: tuple[Instance, ...]) -> tuple[Instance, ...]:
        others = tuple(i for i in snapshot if i.id != self._skip)
        return others or (snapshot if self._alone else ())

    def _calls_itself(self, candidates: tuple[Instance, ...]) -> bool:
        """Whether the only one is the caller, in a call of this very endpoint."""
        if not self._alone or len(candidates) != 1 or candidates[0].id != self._skip:
            return False
        call = CURRENT.get()
        return call is not None and call.route == self._route and not call.ended

    def idempotent(self) -> bool:
        """Whether every instance that a call could go to declares the endpoint idempotent."""
        told = [info.idempotent for i in self.instances() for info in i.endpoints if info.name == self._name]
        return bool(told) and all(told)

    async def ready(self, timeout: float | None = None, *, count: int = 1) -> None:
        """Wait until at least `count` instances are there; `Unavailable` when `timeout` runs out first.

        The caller's own counts where it may be called.
        """
        await self._until(lambda _: len(self.counted()) >= count, timeout)

    async def _until(self, is_ready: Callable[[tuple[Instance, ...]], bool], timeout: float | None) -> None:
        view = await self._viewed()
        # whoever starts a program and sees nothing for as long as it waits takes it for broken
        telling = asyncio.get_running_loop().call_later(_SILENCE, self._tell, timeout)
        try:
            async with asyncio.timeout(timeout):
                await wait_for(view, is_ready)
        except TimeoutError as error:
            why = absence(self._route, view, self._lane())
            raise Unavailable(f"{why.message}; none appeared within {timeout:g} s", fix=why.fix) from error
        finally:
            telling.cancel()

    def _tell(self, timeout: float | None) -> None:
        """Once for each client: it may wait again and again."""
        if not self._told:
            self._told = True
            within = "" if timeout is None else f", for up to {timeout:g} s"
            _log.warning("waiting for an instance of %s%s: none is there yet", self._route, within)

    def _lane(self) -> str:
        return self._answering.lane if isinstance(self._answering, Offer) else ""

    def counted(self) -> tuple[Instance, ...]:
        """The instances that whoever waits for some waits for: the own one too, where it may be called."""
        return self._answering.instances() if self._alone else self.instances()

    async def _viewed(self) -> View:
        if self._view is None:
            assert self._open_view is not None
            self._view = view = await self._open_view()
            self._answering = index_of(view).offer(self._route, self._lanes)
        return self._view

    def usable(self, wanted: int | None, number: int, metadata: dict[str, str] | None) -> ClientConnection | None:
        """The connection to use, if it is open already, as for every call but the first; None otherwise."""
        only = self._only
        if only is not None and only.usable and wanted is None and self._answering.instances() is self._snapshot:
            return only
        candidates = self.instances()
        if wanted is not None or not candidates or (self._alone and self._calls_itself(candidates)):
            self._chosen = None
            conn = None if wanted is None else self._pool.connections.get(wanted)
        else:
            self._chosen = chosen = (
                candidates[0]
                if len(candidates) == 1
                else self._pick(
                    candidates,
                    self._pool.load,
                    OutgoingCall(self._route, NOTHING if metadata is None else metadata, number),
                )
            )
            conn = self._pool.connections.get(chosen.id)
        if conn is None or not conn.usable:
            return None
        if wanted is None and len(candidates) == 1 and not (self._alone and chosen.id == self._skip):
            self._only = conn
        return conn

    async def connected(
        self, wanted: int | None, deadline: float, number: int, metadata: dict[str, str] | None
    ) -> ClientConnection:
        """Find an instance and connect to it within the call's time.

        Raises:
            DeadlineExceeded: the time ran out first.
            Unavailable: no instance is there, or none can be reached.
        """
        chosen = self._chosen
        try:
            # one bound around all attempts: the search has no more time than its call
            async with asyncio.timeout_at(None if deadline == NEVER else deadline):
                await self._viewed()
                return await self._search(
                    wanted, chosen, OutgoingCall(self._route, NOTHING if metadata is None else metadata, number)
                )
        except TimeoutError as error:
            if isinstance(error, BemaError):
                raise
            raise DeadlineExceeded(f"no instance of {self._route} took the call in time") from error

    async def _search(self, wanted: int | None, chosen: Instance | None, call: OutgoingCall) -> ClientConnection:
        tried: set[int] = set()
        problem: BemaError | None = None
        view, settled = await self._viewed(), False
        while True:
            left = [i for i in self._candidates_of(wanted, view) if i.id not in tried]
            speaking = [i for i in left if self._pool.quiet(i) is None]
            if speaking:
                # the picker has chosen already for this call, and would choose the next in turn
                if chosen is not None and chosen in speaking:
                    instance = chosen
                else:
                    instance = self._pick(speaking, self._pool.load, call)
                try:
                    return await self._pool.connect(
                        # where it is the only one there is nothing better than to wait for it
                        instance,
                        self._pool.limits.rpc_heartbeat if len(left) > 1 else None,
                    )
                except BemaError as error:
                    if isinstance(error, Silent) and len(left) > 1:
                        continue  # it is quiet now, and may speak yet
                    problem = error
                    tried.add(instance.id)
            elif left:
                for ident, failed in (await self._heard(left)).items():
                    problem = failed
                    tried.add(ident)
            elif problem is None:
                await self._appeared(wanted)
            elif settled or not self._pool.is_leaving(tried):
                raise problem
            else:
                settled = True
                await self._another(wanted, view, tried)

    async def _another(self, wanted: int | None, view: View, tried: set[int]) -> None:
        """Wait a moment for who takes over from an instance that says it goes: its record may be behind its words."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKEOVER):
                await wait_for(view, lambda _: any(i.id not in tried for i in self._candidates_of(wanted, view)))

    async def _heard(self, silent: list[Instance]) -> dict[int, BemaError]:
        """Wait until one of several silent instances speaks, goes or fails; returns the errors of those that failed."""
        waiting = {change: i.id for i in silent if (change := self._pool.quiet(i)) is not None}
        view = await self._viewed()
        # of the view, too: the instance that answers may be one that was not there when the search
        # began
        turned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stop = view.subscribe(lambda: None if turned.done() else turned.set_result(None))
        try:
            await asyncio.wait([*waiting, turned], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop()
        ended = {ident: change.result() for change, ident in waiting.items() if change.done()}
        return {ident: result for ident, result in ended.items() if isinstance(result, BemaError)}

    def _candidates_of(self, wanted: int | None, view: View) -> tuple[Instance, ...]:
        if wanted is not None:
            # whoever names an instance has chosen: lanes and the caller's own one do not matter
            return tuple(i for i in view.instances() if i.id == wanted and answers(i, self._route))
        candidates = self.instances()
        return () if self._calls_itself(candidates) else candidates

    async def _appeared(self, wanted: int | None) -> None:
        view = await self._viewed()
        if self._wait > 0:
            await self._until(lambda _: bool(self._candidates_of(wanted, view)), self._wait)
        elif self._calls_itself(self.instances()):
            raise Unavailable(
                f"no other instance of {self._route} is there, and this one just answers a call of it",
                fix="Call the method itself, or name the instance to call; or start another instance.",
            )
        else:
            raise absence(self._route, view, self._lane(), wanted)

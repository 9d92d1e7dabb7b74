"""Resolver: which instances answer an endpoint, and a connection to one of them within a call's time.

Law: the instances that answer an endpoint are kept once per view for all its clients, and follow the view change by change.
A change costs the same whatever the number of instances, and nothing for an endpoint that nobody here calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from weakref import WeakKeyDictionary

from bema.core.errors import BemaError, DeadlineExceeded, Unavailable
from bema.core.instance import Instance
from bema.runtime.discovery.discovery import InstanceChange, InstanceSet, View, wait_for
from bema.runtime.rpc.client_connection import ClientConnection
from bema.runtime.rpc.connection import NEVER
from bema.runtime.rpc.picker import NOTHING, OutgoingCall, picker
from bema.runtime.rpc.pool import ConnectionPool, Silent

_log = logging.getLogger("bema.client")
_SILENCE = 1.0
"""Seconds of waiting after which that is said."""

Viewing = View | Callable[[], Awaitable[View]]


class EndpointIndex:
    """The instances of one view by the endpoints that they answer, for those endpoints that a client has asked for."""

    def __init__(self) -> None:
        self._by_route: dict[str, InstanceSet] = {}

    def answering(self, route: str, view: View) -> InstanceSet:
        """The instances that answer `route`, kept current."""
        found = self._by_route.get(route)
        if found is None:
            found = InstanceSet(i for i in view.instances() if _answers(i, route))
            self._by_route[route] = found
        return found

    def turned(self, changes: Sequence[InstanceChange]) -> None:
        for change in changes:
            for route, answering in self._by_route.items():
                before, after = (i if i is not None and _answers(i, route) else None for i in change)
                answering.take(InstanceChange(before, after))


def _answers(instance: Instance, route: str) -> bool:
    place, _, endpoint = route.rpartition(".")
    return (
        instance.component_address == place
        and instance.routable()
        and "rpc" in instance.addresses
        and any(info.name == endpoint for info in instance.endpoints)
    )


_indexes: WeakKeyDictionary[View, EndpointIndex] = WeakKeyDictionary()


def index_of(view: View) -> EndpointIndex:
    """The index of a view, made with its first client; it lives as long as the view."""
    index = _indexes.get(view)
    if index is None:
        index = _indexes[view] = EndpointIndex()
        view.follow(index.turned)
    return index


class Resolver:
    """Finds an instance of one endpoint. `skip` is the caller's own instance, `wait` the seconds to wait for the first."""

    def __init__(
        self,
        pool: ConnectionPool,
        view: Viewing,
        route: str,
        *,
        pick: str = "",
        skip: int | None = None,
        wait: float = 0.0,
    ) -> None:
        self._pool = pool
        self._view = None if callable(view) else view
        self._open_view = view if callable(view) else None
        self._route = route
        self._name = route.rpartition(".")[2]
        self._pick = picker(pool.settings, pick)
        self._skip = skip
        self._wait = wait
        self._answering = InstanceSet() if self._view is None else index_of(self._view).answering(route, self._view)
        self._snapshot: tuple[Instance, ...] | None = None
        self._candidates: tuple[Instance, ...] = ()
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
            skip = self._skip
            self._candidates = snapshot if skip is None else tuple(i for i in snapshot if i.id != skip)
        return self._candidates

    def idempotent(self) -> bool:
        """Whether every instance that a call could go to declares the endpoint idempotent."""
        told = [info.idempotent for i in self.instances() for info in i.endpoints if info.name == self._name]
        return bool(told) and all(told)

    async def ready(self, timeout: float | None = None, *, count: int = 1) -> None:
        """Wait until at least `count` instances are there; `Unavailable` when `timeout` runs out first."""
        view = await self._viewed()
        # whoever starts a program and sees nothing for as long as it waits takes it for broken
        telling = asyncio.get_running_loop().call_later(_SILENCE, self._tell, timeout)
        try:
            async with asyncio.timeout(timeout):
                await wait_for(view, lambda snapshot: len(self.instances()) >= count)
        except TimeoutError as error:
            raise Unavailable(f"no instance of {self._route} appeared within {timeout:g} s") from error
        finally:
            telling.cancel()

    def _tell(self, timeout: float | None) -> None:
        """Once for each client: it may wait again and again."""
        if not self._told:
            self._told = True
            within = "" if timeout is None else f", for up to {timeout:g} s"
            _log.warning("waiting for an instance of %s%s: none is there yet", self._route, within)

    async def _viewed(self) -> View:
        if self._view is None:
            assert self._open_view is not None
            self._view = view = await self._open_view()
            self._answering = index_of(view).answering(self._route, view)
        return self._view

    def usable(self, wanted: int | None, number: int, metadata: dict[str, str] | None) -> ClientConnection | None:
        """The connection to use, if it is open already, as for every call but the first; None otherwise."""
        only = self._only
        if only is not None and only.usable and wanted is None and self._answering.instances() is self._snapshot:
            return only
        candidates = self.instances()
        if wanted is not None or not candidates:
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
        if wanted is None and len(candidates) == 1:
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
        while True:
            left = [i for i in self.instances() if i.id not in tried and wanted in (None, i.id)]
            speaking = [i for i in left if self._pool.quiet(i) is None]
            if speaking:
                if chosen is not None and chosen in speaking:
                    instance = chosen
                else:
                    instance = self._pick(speaking, self._pool.load, call)
                try:
                    return await self._pool.connect(
                        instance, self._pool.limits.rpc_heartbeat if len(left) > 1 else None
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
            elif problem is not None:
                raise problem
            else:
                await self._appeared(wanted)

    async def _heard(self, silent: list[Instance]) -> dict[int, BemaError]:
        """Wait until one of several silent instances speaks, goes or fails; returns the errors of those that failed."""
        waiting = {change: i.id for i in silent if (change := self._pool.quiet(i)) is not None}
        view = await self._viewed()
        turned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stop = view.subscribe(lambda: None if turned.done() else turned.set_result(None))
        try:
            await asyncio.wait([*waiting, turned], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop()
        ended = {ident: change.result() for change, ident in waiting.items() if change.done()}
        return {ident: result for ident, result in ended.items() if isinstance(result, BemaError)}

    async def _appeared(self, wanted: int | None) -> None:
        if self._wait <= 0:
            which = "" if wanted is None else f" of the id {wanted}"
            raise Unavailable(f"no instance of {self._route}{which} is there")
        await self.ready(self._wait)

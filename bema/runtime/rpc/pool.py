"""ConnectionPool: one connection per instance, opened on demand and shared by every client of one event loop.

Law: an instance that was silent for a heartbeat gets no new calls, and no caller waits for it who could go elsewhere. A
stopped process counts as silent too: the kernel accepts connections for it, and nothing answers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from time import monotonic
from typing import Any, Final

from bema.core.errors import BemaError, Disconnected, Unavailable
from bema.core.instance import Instance
from bema.core.settings import Settings, current
from bema.runtime.rpc import transports
from bema.runtime.rpc.client_connection import ClientConnection
from bema.runtime.rpc.connection import NEVER, NotGreeted
from bema.runtime.tasks import Tasks

_HOST = socket.gethostname()
REMEMBERED: Final = 1024


class Silent(Unavailable):
    """The instance did not answer in time. A caller without another instance may wait on."""


class ConnectionPool:
    """Connections by instance id. Any code may read `connections`; only `connect` adds to it."""

    def __init__(self, name: str = "", settings: Settings | None = None) -> None:
        self.name = name
        self.settings = current() if settings is None else settings
        self.limits = self.settings.limits
        self.connections: dict[int, ClientConnection] = {}
        self._opening: dict[int, asyncio.Task[ClientConnection | BemaError]] = {}
        self._since: dict[int, float] = {}  # when it was first tried to reach who has not answered yet
        self._tasks = Tasks("connecting")

    def load(self, instance: Instance) -> int:
        """How many calls of this pool the instance has not answered yet."""
        connection = self.connections.get(instance.id)
        return 0 if connection is None else len(connection.calls)

    def quiet(self, instance: Instance) -> asyncio.Future[Any] | None:
        """A future that is done when a silent instance has changed; None for an instance that is not silent.

        An instance that was never reached is tried again meanwhile.
        """
        connection = self.connections.get(instance.id)
        if connection is not None and not connection.closed:
            return connection.changed if connection.silent else None
        since = self._since.get(instance.id)
        if since is None or monotonic() - since < self.limits.rpc_heartbeat:
            return None
        return self._begun(instance)

    def is_leaving(self, idents: Iterable[int]) -> bool:
        """Whether one of these instances said that it goes, and takes no new calls."""
        known = (self.connections.get(ident) for ident in idents)
        return any(connection is not None and connection.going for connection in known)

    async def connect(self, instance: Instance, patience: float | None = None) -> ClientConnection:
        """The connection to an instance, opened if need be.

        Raises:
            Silent: it did not answer within `patience` seconds; opening the connection goes on.
            Unavailable: it cannot be reached, or is stopping.
        """
        connection = self.connections.get(instance.id)
        if connection is not None and not connection.closed:
            if connection.going:
                raise Unavailable(f"{instance.component_address}@{instance.label} is stopping and takes no new calls")
            return connection
        opening = self._begun(instance)
        if not (await asyncio.wait({opening}, timeout=patience))[0]:
            # a loop's timer may be a little early, and a second wait for it would be a second heartbeat
            self._since[instance.id] = min(self._since.get(instance.id, NEVER), monotonic() - self.limits.rpc_heartbeat)
            raise Silent(f"{instance.component_address}@{instance.label} has not answered within {patience:g} s")
        opened = opening.result()
        if isinstance(opened, BemaError):
            raise opened
        if opened.closed or opened.going:  # since it was greeted: a call on it would never be settled
            raise Unavailable(f"{instance.component_address}@{instance.label} stopped while it was connected to")
        return opened

    def _begun(self, instance: Instance) -> asyncio.Task[ClientConnection | BemaError]:
        # one attempt for all callers: a hundred first calls make one connection
        opening = self._opening.get(instance.id)
        if opening is None:
            self._since.setdefault(instance.id, monotonic())
            opening = self._tasks.start(self._tried(instance), name=f"connecting to {instance.label}")
            self._opening[instance.id] = opening
            opening.add_done_callback(lambda task: self._opening.pop(instance.id, None))
        return opening

    async def _tried(self, instance: Instance) -> ClientConnection | BemaError:
        """Open a connection; returns it, or the reason why there is none."""
        # returned, not raised: a scope logs a task that fails, and an instance that cannot be reached is no failure of ours
        try:
            opened: ClientConnection | BemaError = await self._open(instance)
        except BemaError as error:
            opened = error
        if not isinstance(opened, Silent):
            self._since.pop(instance.id, None)
        # an instance that went while it was tried is asked for by nobody any more, and would stay
        # here
        while len(self._since) > REMEMBERED:
            del self._since[next(iter(self._since))]
        return opened

    async def _open(self, instance: Instance) -> ClientConnection:
        problem: BemaError = Unavailable(f"{instance.component_address}@{instance.label} speaks RPC nowhere")
        # the best first, as the record lists them: the next is tried only where nobody answers at
        # this one
        for address in self._addresses(instance):
            try:
                connection = await self._greet(address, instance.token)
            except Silent:
                raise  # a process that accepts and says nothing does so at every address
            except BemaError as error:
                problem = error
                continue
            self.connections[instance.id] = connection
            return connection
        raise problem

    def _addresses(self, instance: Instance) -> list[str]:
        # a Unix socket, and the loopback address, mean another process on another host
        same_host = instance.host in ("", _HOST)
        return [
            a for a in instance.addresses.get("rpc", ()) if transports.reachable(a, self.settings, same_host=same_host)
        ]

    async def _greet(self, address: str, token: str) -> ClientConnection:
        loop = asyncio.get_running_loop()
        connection = await transports.connect(
            address, lambda: ClientConnection(loop, token, self.name, self.limits), self.settings
        )
        try:
            await connection.ready
        except asyncio.CancelledError:
            # nobody else knows this connection yet, so nobody else would close it
            connection.abort(Disconnected("nobody waits for the greeting any more"))
            raise
        except NotGreeted as error:
            raise Silent(f"the instance at {address} accepts connections and says nothing") from error
        except Disconnected as error:
            raise Unavailable(f"the instance at {address} hung up: {error.message}") from error
        return connection

    async def close(self) -> None:
        """Close every connection; running calls fail as disconnected."""
        await self._tasks.stop()
        for connection in tuple(self.connections.values()):
            connection.close()
        self.connections.clear()
        # one turn, in which the transports say `connection_lost` and the calls that run are settled
        await asyncio.sleep(0)

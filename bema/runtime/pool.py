"""One connection per instance, made on demand and shared by every client of one event loop."""

from __future__ import annotations

import asyncio
import socket

from bema.core.errors import BemaError, Disconnected, Unavailable
from bema.core.instance import Instance
from bema.runtime import transports
from bema.runtime.calling import CallingConnection
from bema.runtime.tasks import Tasks

_HOST = socket.gethostname()


class Pool:
    """Connections by instance id. `connections` may be read by anybody; only `connect` adds to it."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.connections: dict[int, CallingConnection] = {}
        self._opening: dict[int, asyncio.Task[CallingConnection | BemaError]] = {}
        self._tasks = Tasks("connecting")

    def load(self, instance: Instance) -> int:
        """Calls of ours that the instance has not answered yet."""
        connection = self.connections.get(instance.id)
        return 0 if connection is None else len(connection.calls)

    def quiet(self, instance: Instance) -> CallingConnection | None:
        """The instance's connection if it is open but was silent for a heartbeat."""
        connection = self.connections.get(instance.id)
        return connection if connection is not None and connection.silent and not connection.closed else None

    async def connect(self, instance: Instance) -> CallingConnection:
        """The instance's connection, opened if need be; `Unavailable` if it cannot take calls."""
        connection = self.connections.get(instance.id)
        if connection is not None and not connection.closed:
            if connection.going:
                raise Unavailable(f"{instance.component_address}@{instance.label} is stopping and takes no new calls")
            return connection
        opening = self._opening.get(instance.id)
        if opening is None:
            opening = self._tasks.start(self._tried(instance), name=f"connecting to {instance.label}")
            self._opening[instance.id] = opening
            opening.add_done_callback(lambda task: self._opening.pop(instance.id, None))
        opened = await asyncio.shield(opening)
        if isinstance(opened, BemaError):
            raise opened
        if opened.closed or opened.going:  # since it was greeted: a call on it would never be settled
            raise Unavailable(f"{instance.component_address}@{instance.label} stopped while it was connected to")
        return opened

    async def _tried(self, instance: Instance) -> CallingConnection | BemaError:
        """A connection, or why there is none: whoever waits for it raises that, and it is no failure of the task."""
        try:
            return await self._open(instance)
        except BemaError as error:
            return error

    async def _open(self, instance: Instance) -> CallingConnection:
        problem: BemaError = Unavailable(f"{instance.component_address}@{instance.label} speaks RPC nowhere")
        for address in self._addresses(instance):
            try:
                connection = await self._greet(address, instance.token)
            except BemaError as error:
                problem = error
                continue
            self.connections[instance.id] = connection
            return connection
        raise problem

    @staticmethod
    def _addresses(instance: Instance) -> list[str]:
        same_host = instance.host in ("", _HOST)
        return [a for a in instance.addresses.get("rpc", ()) if transports.reachable(a, same_host=same_host)]

    async def _greet(self, address: str, token: str) -> CallingConnection:
        loop = asyncio.get_running_loop()
        connection = await transports.connect(address, lambda: CallingConnection(loop, token, self.name))
        try:
            await connection.ready
        except Disconnected as error:
            raise Unavailable(f"the instance at {address} hung up: {error.message}") from error
        return connection

    async def close(self) -> None:
        """Close every connection; running calls fail as disconnected."""
        await self._tasks.stop()
        for connection in tuple(self.connections.values()):
            connection.close()
        self.connections.clear()
        await asyncio.sleep(0)

"""The orchestrator's end of the keeper's link: requests with ids, and a queue of events."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from typing import Any

import msgspec

from bema.core.errors import Disconnected, Refused, of_code

_LONGEST = 64 * 1024 * 1024
_GONE = "the keeper closed its link"


class KeeperClient:
    """One link. `events` are the keeper's, in its order; None is the last."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._listener = asyncio.create_task(self._listen(), name="keeper link")

    @classmethod
    async def open(cls, descriptor: int | None = None) -> KeeperClient:
        """The link on `descriptor`, or on the one the keeper named in `BEMA_KEEPER`."""
        if descriptor is None:
            named = os.environ.get("BEMA_KEEPER", "")
            if not named.isdecimal():
                raise Refused(
                    "there is no keeper to ask for processes",
                    fix="`bema up` starts the keeper, and the keeper starts this.",
                )
            descriptor = int(named)
        end = socket.socket(fileno=descriptor)
        end.set_inheritable(False)
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_LONGEST))

    async def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        """The keeper's answer, or its refusal raised; `Disconnected` when the link ends."""
        if self._listener.done():
            raise Disconnected(_GONE)
        number = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(msgspec.json.encode({"id": number, "op": op, **arguments}) + b"\n")
            await self._writer.drain()
            return await answer
        except ConnectionError as error:
            raise Disconnected(_GONE) from error
        finally:
            del self._waiting[number]

    async def close(self) -> None:
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)
        self._writer.close()

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(msgspec.json.decode(line))
        except ConnectionError:
            pass
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(Disconnected(_GONE))
            self.events.put_nowait(None)

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self.events.put_nowait(message)
            return
        waiting = self._waiting.get(message.get("id", 0))
        if waiting is None or waiting.done():
            return
        if "error" in message:
            waiting.set_exception(of_code(**message["error"]))
        else:
            waiting.set_result(message["ok"])

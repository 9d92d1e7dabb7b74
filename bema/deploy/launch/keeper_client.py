"""The orchestrator's end of the keeper's link: requests with ids, a queue of events, and descriptors beside both.

Law: a descriptor that nobody waits for is closed. Those of a request are sent before it and those of an answer come
before it, so they are looked for when the line is there; in between the loop takes in what comes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Mapping
from typing import Any

import msgspec

from bema.core.errors import Disconnected, Refused, of_code
from bema.deploy.keeper.descriptors import Deliveries, DescriptorSocket

# the answer to `list` is one line for all instances, each with its status of up to 64 KiB
_LONGEST = 64 * 1024 * 1024
_GONE = "the keeper closed its link"


class KeeperClient:
    """One link. `events` are the keeper's, in its order; None is the last."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, beside: DescriptorSocket) -> None:
        self.events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._reader = reader
        self._writer = writer
        self._beside = beside
        self._arrived = Deliveries()
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._sending = asyncio.Lock()
        self._loop.add_reader(beside.socket, self._collect)
        self._listener = asyncio.create_task(self._listen(), name="keeper link")

    @classmethod
    async def open(cls, lines: int | None = None, descriptors: int | None = None) -> KeeperClient:
        """The link on these descriptors, or on those that the keeper named in the environment."""
        if lines is None or descriptors is None:
            lines, descriptors = _named("BEMA_KEEPER"), _named("BEMA_KEEPER_DESCRIPTORS")
        end, beside = (socket.socket(fileno=each) for each in (lines, descriptors))
        # uv and other children of ours must not hold the link: its end would not be seen
        for each in (end, beside):
            each.set_inheritable(False)
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=_LONGEST)
        return cls(reader, writer, DescriptorSocket(beside))

    async def request(
        self, op: str, *, descriptors: Mapping[str, int] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """The keeper's answer, or its refusal raised; `Disconnected` when the link ends.

        Copies of `descriptors` go with it, each under its name; they stay the caller's to close.
        """
        number, answer = self._begin()
        try:
            for name, descriptor in (descriptors or {}).items():
                await self._send(number, name, descriptor)
            return await self._ask(number, op, arguments, answer)
        finally:
            self._end(number)

    async def borrow(self, instance: int, name: str) -> int:
        """A copy, the caller's to close, of what the keeper keeps for an instance; `NotFound` when it keeps none."""
        number, answer = self._begin()
        try:
            await self._ask(number, "lend", {"instance": instance, "name": name}, answer)
            return self._arrived.take(number, name)
        except OSError as error:
            raise Refused(f"{name} of an instance cannot be taken over: {error.strerror}") from error
        finally:
            self._end(number)

    def _begin(self) -> tuple[int, asyncio.Future[dict[str, Any]]]:
        if self._listener.done():
            raise Disconnected(_GONE)
        number = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting[number] = answer
        return number, answer

    async def _ask(
        self, number: int, op: str, arguments: Mapping[str, Any], answer: asyncio.Future[dict[str, Any]]
    ) -> dict[str, Any]:
        try:
            self._writer.write(msgspec.json.encode({"id": number, "op": op, **arguments}) + b"\n")
            await self._writer.drain()
            return await answer
        except ConnectionError as error:
            raise Disconnected(_GONE) from error

    def _end(self, number: int) -> None:
        del self._waiting[number]
        self._arrived.drop(number)

    async def _send(self, number: int, name: str, descriptor: int) -> None:
        """One after the other, since there is one place to wait for room."""
        async with self._sending:
            while True:
                try:
                    self._beside.send(number, name, descriptor)
                    return
                except BlockingIOError:
                    await self._room()
                except OSError as error:
                    raise Disconnected(_GONE) from error

    async def _room(self) -> None:
        room = asyncio.Event()
        self._loop.add_writer(self._beside.socket, room.set)
        try:
            await room.wait()
        finally:
            self._loop.remove_writer(self._beside.socket)

    async def close(self) -> None:
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)
        self._writer.close()
        self._part()
        self._beside.close()

    def _part(self) -> None:
        self._loop.remove_reader(self._beside.socket)
        self._arrived.close()

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(msgspec.json.decode(line))
        except ConnectionError:
            pass
        finally:
            # who asked is told that nothing is known: what was asked may have been done
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(Disconnected(_GONE))
            self._part()
            self.events.put_nowait(None)

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self.events.put_nowait(message)
            return
        waiting = self._waiting.get(message.get("id", 0))
        if waiting is None or waiting.done():
            return
        # what belongs to the answer was sent before it, and may not have been read yet
        self._collect()
        if "error" in message:
            waiting.set_exception(of_code(**message["error"]))
        else:
            waiting.set_result(message["ok"])

    def _collect(self) -> None:
        """Take in what came beside the lines."""
        for delivery in self._beside.receive():
            self._arrived.put(delivery)
            if delivery.request not in self._waiting:
                self._arrived.drop(delivery.request)
        if self._beside.closed:
            self._loop.remove_reader(self._beside.socket)


def _named(variable: str) -> int:
    value = os.environ.get(variable, "")
    if not value.isdecimal():
        raise Refused(
            "there is no keeper to ask for processes", fix="`bema up` starts the keeper, and the keeper starts this."
        )
    return int(value)

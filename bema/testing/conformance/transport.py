"""The laws of Transport: bytes arrive whole and in order, and each end hears of the other's end.

`make` gives a `Trial`: the transport, and what gives an address that nobody listens at yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from bema.core.errors import Unavailable
from bema.testing.conformance.frame import Make, Suite

SUITE = Suite("transport")
LARGE = bytes(range(256)) * 8192  # 2 MiB: more than any buffer takes at once


class TransportTrial(NamedTuple):
    transport: Any
    address: Callable[[], str]


class End(asyncio.Protocol):
    """One end of a connection: what came, and whether it ended."""

    def __init__(self) -> None:
        self.came = bytearray()
        self.changed = asyncio.Event()
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.came += data
        self.changed.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.over = True
        self.changed.set()

    async def until(self, holds: Callable[[End], bool]) -> None:
        while not holds(self):
            self.changed.clear()
            await self.changed.wait()


class Ends:
    """A listening transport, and both ends of one connection to it."""

    def __init__(self) -> None:
        self.accepted: list[End] = []
        self._more = asyncio.Event()

    def accept(self) -> End:
        self.accepted.append(End())
        self._more.set()
        return self.accepted[-1]

    async def open(self, trial: TransportTrial) -> tuple[Any, End, End]:
        listener = await trial.transport.listen(trial.address(), self.accept)
        client = await trial.transport.connect(listener.address, End)
        # A transport may connect before the other side has accepted; a byte that arrived proves
        # both.
        client.transport.write(b"hello")
        await self._more.wait()
        await self.accepted[-1].until(lambda end: bytes(end.came) == b"hello")
        self.accepted[-1].came.clear()
        return listener, client, self.accepted[-1]


async def end(listener: Any, *ends: End) -> None:
    listener.close()
    for one in ends:
        one.transport.close()
        await one.until(lambda end: end.over)


@SUITE.law()
async def said_address_is_its_own(make: Make) -> None:
    """What listens says an address of its transport, which can be reached from here."""
    trial = await make()
    asked = trial.address()
    listener = await trial.transport.listen(asked, End)
    assert listener.address.partition(":")[0] == asked.partition(":")[0]
    assert trial.transport.reachable(listener.address, same_host=True)
    listener.close()


@SUITE.law()
async def bytes_arrive_whole(make: Make) -> None:
    """What is written at one end arrives at the other, whole and in order, both ways."""
    listener, client, server = await Ends().open(await make())
    client.transport.writelines([b"a", LARGE, b"z"])
    server.transport.write(LARGE[::-1])
    await server.until(lambda end: len(end.came) >= len(LARGE) + 2)
    assert bytes(server.came) == b"a" + LARGE + b"z"
    await client.until(lambda end: len(end.came) >= len(LARGE))
    assert bytes(client.came) == LARGE[::-1]
    await end(listener, client, server)


@SUITE.law()
async def an_end_is_heard(make: Make) -> None:
    """Who closes ends the other end too, after what was written."""
    ends = Ends()
    listener, client, server = await ends.open(await make())
    client.transport.write(b"last words")
    client.transport.close()
    await server.until(lambda end: end.over)
    assert bytes(server.came) == b"last words"
    await client.until(lambda end: end.over)
    await end(listener, server)


@SUITE.law()
async def nobody_is_unavailable(make: Make) -> None:
    """Connecting to an address where nobody listens, or no more, is refused as Unavailable."""
    trial = await make()
    listener = await trial.transport.listen(trial.address(), End)
    listener.close()
    for _ in range(2):
        try:
            await trial.transport.connect(listener.address, End)
        except Unavailable:
            continue
        raise AssertionError("somebody answered")


@SUITE.law()
async def accepted_connections_live_on(make: Make) -> None:
    """Closing what listens leaves the connections that it accepted."""
    listener, client, server = await Ends().open(await make())
    listener.close()
    client.transport.write(b"still here")
    await server.until(lambda end: bytes(end.came) == b"still here")
    await end(listener, client, server)


@SUITE.law()
async def connections_are_apart(make: Make) -> None:
    """Two connections to one address do not hear each other."""
    trial, ends = await make(), Ends()
    listener, one, server = await ends.open(trial)
    other = await trial.transport.connect(listener.address, End)
    other.transport.write(b"other")
    one.transport.write(b"one")
    await server.until(lambda end: bytes(end.came) == b"one")
    await ends.accepted[-1].until(lambda end: bytes(end.came) == b"other")
    await end(listener, one, other, server, ends.accepted[-1])

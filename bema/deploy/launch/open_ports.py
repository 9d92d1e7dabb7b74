"""Where a program listens, as its launcher decides it: PORT whenever it comes, another address where it never does."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bema.core.paths import socket_dir
from bema.runner.listeners import answers, at_port, free_port, is_open, of_session

__all__ = ["free_port", "listener_of", "moves", "socket_of", "sockets_of"]

_FIRST_POLL = 0.01
_LAST_POLL = 0.05
_LATE_POLL = 1.0
_PLACE = 8  # characters of a listener's name that tell it from others of its deployment
_PATIENCE = 2.0  # seconds that PORT may come after another listener


def socket_of(deployment: str, version: str, slot: int) -> Path:
    """Where a listener of a version lies; short enough for any folder, and of one length with every other."""
    place = hashlib.sha256(f"{version}/{slot}".encode()).hexdigest()[:_PLACE]
    return socket_dir() / f"{_short(deployment)}{place}.sock"


def sockets_of(deployment: str) -> list[Path]:
    """Every listener of a deployment that lies there."""
    return list(socket_dir().glob(f"{_short(deployment)}{'?' * _PLACE}.sock"))


def _short(deployment: str) -> str:
    return deployment.replace("-", "")[:13]


async def listener_of(session: int, port: int | None) -> str:
    """The address at which the session's processes accept, once there is one. Put a timeout around it.

    `port` is the one it was asked to use: it is taken at once. Another is taken when `port` has not come for a while after it,
    and it answers HTTP: a program may open a side listener, for metrics or for its workers, before the one it was asked for.
    """
    since: dict[str, float] = {}
    pause = _FIRST_POLL
    while True:
        found = await asyncio.to_thread(of_session, session)
        if asked := at_port(found, port):
            return asked
        now = time.monotonic()
        since = {address: since.get(address, now) for address in found}
        for address, seen in since.items():
            if port is None and seen < now:
                return address
            # a while, since the real listener often comes right after the side one: what is taken
            # wrongly serves its first requests from the wrong place
            if port is not None and now - seen > _PATIENCE and await asyncio.to_thread(answers, address):
                return at_port(await asyncio.to_thread(of_session, session), port) or address
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, _LAST_POLL)


async def moves(session: int, port: int | None, address: str) -> AsyncIterator[tuple[str, bool]]:
    """Where a program that was found at `address` accepts from now on, and whether it does: what changes of it.

    `port` is taken whenever it comes, and for good. Another address is the program's as long as it listens nowhere else.
    """
    accepts = True
    while True:
        await asyncio.sleep(_LATE_POLL)
        before = address, accepts
        if port is not None and not at_port([address], port):
            address = at_port(await asyncio.to_thread(of_session, session), port) or address
        # looked at and not connected to: a server of one thread would be kept from its client by
        # our probe
        accepts = await asyncio.to_thread(is_open, session, address)
        if (address, accepts) != before:
            yield address, accepts

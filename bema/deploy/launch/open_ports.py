"""Where a program listens, found from outside: its process group's sockets matched with the kernel's tables.

A program may ignore `PORT`, bind another host, or listen in a child. /proc tells all the same (proc(5), proc_net(5)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bema.core.paths import socket_dir
from bema.deploy.keeper.processes import processes

_LISTEN = "0A"
_ACCEPTS = 0x10000  # __SO_ACCEPTCON
_FIRST_POLL = 0.01
_LAST_POLL = 0.05
_LATE_POLL = 1.0
_PATIENCE = 2.0  # seconds that PORT may come after another listener
_PROBE = 5.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # what to connect to where all addresses are bound


def socket_of(deployment: str) -> Path:
    """Where a deployment's listener lies; one per deployment, short enough for any folder."""
    return socket_dir() / f"{deployment.replace('-', '')[:13]}.sock"


def free_port() -> int:
    """A port nobody listens on now, for a program that binds it itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def listener_of(session: int, port: int | None) -> str:
    """The address at which the session's processes accept, once there is one. Put a timeout around it.

    `port` is the one it was asked to use: it is taken at once. Another is taken when `port` has not come for a while after it,
    and it answers HTTP: a program may open a side listener, for metrics or for its workers, before the one it was asked for.
    """
    since: dict[str, float] = {}
    pause = _FIRST_POLL
    while True:
        found = await asyncio.to_thread(listeners, session)
        if asked := at_port(found, port):
            return asked
        now = time.monotonic()
        since = {address: since.get(address, now) for address in found}
        for address, seen in since.items():
            if port is None and seen < now:
                return address
            if port is not None and now - seen > _PATIENCE and await _answers(address):
                return at_port(await asyncio.to_thread(listeners, session), port) or address
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, _LAST_POLL)


async def port_of(session: int, port: int) -> str:
    """The address at `port`, whenever the session's processes come to accept there."""
    while True:
        if asked := at_port(await asyncio.to_thread(listeners, session), port):
            return asked
        await asyncio.sleep(_LATE_POLL)


def at_port(addresses: list[str], port: int | None) -> str | None:
    return next((a for a in addresses if port is not None and a.endswith(f":{port}")), None)


async def _answers(address: str) -> bool:
    """Whether something that speaks HTTP listens there."""
    kind, _, where = address.partition(":")
    host, _, port = where.rpartition(":")
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(_PROBE):
            opening = (
                asyncio.open_unix_connection(where)
                if kind == "unix"
                else asyncio.open_connection(host.strip("[]"), int(port))
            )
            reader, writer = await opening
            try:
                writer.write(b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                return (await reader.read(5)).startswith(b"HTTP")
            finally:
                writer.close()
    return False


def listeners(session: int) -> list[str]:
    """All addresses at which processes of a session accept, TCP first."""
    members = [process.pid for process in processes() if process.session == session]
    inodes = {inode for pid in members for inode in _sockets(pid)}
    if not inodes:
        return []
    net = Path(f"/proc/{members[0]}/net")
    return [*_tcp(net / "tcp", inodes), *_tcp(net / "tcp6", inodes), *_unix(net / "unix", inodes)]


def _sockets(pid: int) -> Iterator[str]:
    """The inodes of the sockets a process holds."""
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - many
    except OSError:
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")  # noqa: PTH115 - one of many
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def _lines(table: Path) -> list[list[str]]:
    try:
        return [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []


def _tcp(table: Path, inodes: set[str]) -> Iterator[str]:
    for fields in _lines(table):
        if fields[3] == _LISTEN and fields[9] in inodes:
            host, _, port = fields[1].partition(":")
            name = _host(host)
            name = _ANY.get(name, name)
            yield f"tcp:[{name}]:{int(port, 16)}" if ":" in name else f"tcp:{name}:{int(port, 16)}"


def _unix(table: Path, inodes: set[str]) -> Iterator[str]:
    for fields in _lines(table):
        named = len(fields) > 7 and fields[7].startswith("/")
        if named and int(fields[3], 16) & _ACCEPTS and fields[6] in inodes:
            yield f"unix:{fields[7]}"


def _host(text: str) -> str:
    """An address of the tables: 32-bit words in the machine's byte order, as hexadecimal digits."""
    words = [bytes.fromhex(text[start : start + 8])[::_WORD] for start in range(0, len(text), 8)]
    packed = b"".join(words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


_WORD = -1 if sys.byteorder == "little" else 1

"""Where a program listens, found from outside: its process group's sockets matched with the kernel's tables.

A program may ignore `PORT`, bind another host, or listen in a child. /proc tells all the same (proc(5), proc_net(5)).
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from bema.core.paths import socket_dir
from bema.deploy.keeper.processes import processes

_LISTEN = "0A"
_ACCEPTS = 0x10000  # __SO_ACCEPTCON
_FIRST_POLL = 0.01
_LAST_POLL = 0.05
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

    `port` is the one it was asked to use: it is taken at once, any other when it is still there a moment later.
    """
    seen: str | None = None
    pause = _FIRST_POLL
    while True:
        found = await asyncio.to_thread(listeners, session)
        asked = next((a for a in found if port is not None and a.endswith(f":{port}")), None)
        if asked or (found and found[0] == seen):
            return asked or found[0]
        seen = found[0] if found else None
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, _LAST_POLL)


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

"""Where the processes of a session listen: their sockets matched with the kernel's tables (proc(5), proc_net(5)).

Law: a program is asked nothing. It may ignore `PORT`, bind another host, or listen in a child; the kernel tells all the same.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_LISTEN = "0A"
_ACCEPTS = 0x10000  # __SO_ACCEPTCON
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # what to connect to where all addresses are bound
_WORD = -1 if sys.byteorder == "little" else 1
_PROBE = 5.0
_HEAD = b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def free_port() -> int:
    """A port nobody listens on now, for a program that binds it itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def of_session(session: int) -> list[str]:
    """All addresses at which processes of a session accept, TCP first."""
    return of_processes(list(_members(session)))


def of_processes(pids: Iterable[int]) -> list[str]:
    members = list(pids)
    inodes = {inode for pid in members for inode in _sockets(pid)}
    if not inodes:
        return []
    # the table of a member, not ours: it may live in a network namespace of its own
    net = Path(f"/proc/{members[0]}/net")
    return [*_tcp(net / "tcp", inodes), *_tcp(net / "tcp6", inodes), *_unix(net / "unix", inodes)]


def is_open(pid: int, address: str) -> bool:
    """Whether anybody accepts at `address`, in the tables as `pid` sees them: cheap enough to ask again and again."""
    # inodes would ask /proc for every descriptor of the session, each second, for each program
    net = Path(f"/proc/{pid}/net")
    if address.startswith("unix:"):
        return address in _unix(net / "unix", None)
    return any(address in _tcp(net / name, None) for name in ("tcp", "tcp6"))


def at_port(addresses: Iterable[str], port: int | None) -> str | None:
    return next((a for a in addresses if port is not None and a.endswith(f":{port}")), None)


def answers(address: str) -> bool:
    """Whether something that speaks HTTP listens there."""
    with contextlib.suppress(OSError, ValueError), _connected(address) as client:
        # a listener that accepts proves nothing: a multiprocessing Manager does, and answers no
        # HTTP
        client.sendall(_HEAD)
        return client.recv(5).startswith(b"HTTP")
    return False


def _connected(address: str) -> socket.socket:
    kind, _, where = address.partition(":")
    if kind != "unix":
        host, _, port = where.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), _PROBE)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(_PROBE)
    try:
        client.connect(where)
    except OSError:
        client.close()
        raise
    return client


def _members(session: int) -> Iterator[int]:
    for name in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 - many
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX" and int(fields[3]) == session:
                yield int(name)


def _sockets(pid: int) -> Iterator[str]:
    """The inodes of the sockets a process holds."""
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - many
    except OSError:
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")  # noqa: PTH115 - one of many
        # it was closed between the listing and the look
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def _lines(table: Path) -> list[list[str]]:
    try:
        return [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []


def _tcp(table: Path, inodes: set[str] | None) -> Iterator[str]:
    for fields in _lines(table):
        # the connections of a server stand in the table with its listener, in other states
        if fields[3] == _LISTEN and (inodes is None or fields[9] in inodes):
            host, _, port = fields[1].partition(":")
            name = _host(host)
            name = _ANY.get(name, name)
            yield f"tcp:[{name}]:{int(port, 16)}" if ":" in name else f"tcp:{name}:{int(port, 16)}"


def _unix(table: Path, inodes: set[str] | None) -> Iterator[str]:
    for fields in _lines(table):
        named = len(fields) > 7 and fields[7].startswith("/")
        accepts = named and int(fields[3], 16) & _ACCEPTS
        if accepts and (inodes is None or fields[6] in inodes):
            yield f"unix:{fields[7]}"


def _host(text: str) -> str:
    """An address of the tables: 32-bit words in the machine's byte order, as hexadecimal digits."""
    words = [bytes.fromhex(text[start : start + 8])[::_WORD] for start in range(0, len(text), 8)]
    packed = b"".join(words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)

"""Init: the first line on the module channel, and not a byte more of it."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

_AT_ONCE = 64 * 1024


class NoInit(Exception):
    """There is no channel, or what came on it is no Init."""


def channel() -> socket.socket:
    """The channel that the launcher named; what this process starts does not inherit it."""
    named = os.environ.pop("BEMA_CHANNEL", "")
    if not named.isdecimal():
        raise NoInit("BEMA_CHANNEL names no module channel: this program is started by bema, not by hand")
    os.set_inheritable(int(named), False)
    return socket.socket(fileno=int(named))


def keep(init: dict[str, Any], channel: int) -> None:
    """Leave Init and the channel to the program that this process becomes. Init has secrets: it lies in memory, unnamed."""
    kept = os.memfd_create("init", 0)
    # Init cannot be read twice from a socket, and arguments or environment would show it in /proc
    os.write(kept, json.dumps(init).encode())
    os.set_inheritable(channel, True)
    os.environ["BEMA_CHANNEL"], os.environ["BEMA_INIT"] = str(channel), str(kept)


def read(end: socket.socket) -> dict[str, Any]:
    """Read Init. What follows it is left for whoever serves, so it is looked at before it is taken."""
    if kept := os.environ.pop("BEMA_INIT", ""):
        with os.fdopen(int(kept), "rb") as file:
            file.seek(0)
            return dict(json.load(file))
    longest = int(os.environ.get("BEMA_LIMITS__CHANNEL_LINE", 1024 * 1024))
    line = bytearray()
    while not line.endswith(b"\n"):
        # a Stop may come in the same packet as Init: a buffered reader would swallow it, and the
        # host would serve on until its grace is over
        seen = end.recv(_AT_ONCE, socket.MSG_PEEK)
        newline = seen.find(b"\n")
        line += end.recv(len(seen) if newline < 0 else newline + 1)
        if not seen:
            raise NoInit("the module channel ended before Init")
        if len(line) > longest:
            raise NoInit(f"Init is longer than {longest} bytes")
    try:
        init = json.loads(line)
    except ValueError as error:
        raise NoInit(f"Init is not JSON: {error}") from error
    if not isinstance(init, dict) or not isinstance(init.get("script"), str):
        raise NoInit("Init names no script")
    return init

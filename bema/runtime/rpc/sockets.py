"""Sockets: from an address to a listening socket, and back.

Law: only a socket file at which nobody answers is replaced.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from bema.core.errors import Invalid, Refused


def split(address: str) -> tuple[str, str]:
    """Split `unix:/path`, `tcp:host:port` or `memory:name` into protocol and rest; `Invalid` for any other form."""
    protocol, colon, rest = address.partition(":")
    if not colon or not rest or protocol not in ("unix", "tcp", "memory"):
        raise Invalid(f"address {address!r} is not unix:PATH, tcp:HOST:PORT or memory:NAME")
    return protocol, rest


def host_port(rest: str) -> tuple[str, int]:
    """Split `host:port`, an IPv6 address in brackets; `Invalid` for any other form."""
    host, colon, port = rest.rpartition(":")
    if not colon or not port.isdecimal():
        raise Invalid(f"address 'tcp:{rest}' is not tcp:HOST:PORT")
    return host.strip("[]"), int(port)


def bind(address: str) -> socket.socket:
    """A listening socket at a Unix or TCP address.

    Raises:
        Refused: it cannot listen there; the code is `port_in_use` where the port is taken.
    """
    protocol, rest = split(address)
    if protocol == "unix":
        return _bind_unix(rest)
    host, port = host_port(rest)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        code = "port_in_use" if error.errno == errno.EADDRINUSE else "not_supported"
        raise Refused(f"cannot listen on {address}: {error.strerror}", code=code) from error


def _bind_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(path).exists() and not _answers(path):
            Path(path).unlink(missing_ok=True)
        # `bind` makes the file, with the mode that umask leaves: a `chmod` afterwards would leave it open for a moment
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise Refused(f"cannot listen on unix:{path}: {error.strerror or error}") from error
    return listener


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def address_of(listener: socket.socket) -> str:
    """The address of a bound socket, its port filled in."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}"
    host, port = name[:2]
    return f"tcp:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"

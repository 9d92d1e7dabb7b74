"""One listening socket per slot of a version: it outlives the instances, so a request that comes between two waits in it."""

from __future__ import annotations

import contextlib
import socket
import stat
import time
from pathlib import Path

# requests that come while no instance accepts wait here; the kernel cuts it to its somaxconn
_BACKLOG = 1024
_YOUNG = 2.0  # seconds


class Listeners:
    def __init__(self) -> None:
        self._slots: dict[str, tuple[str, socket.socket]] = {}

    def open(self, slot: str, address: str) -> tuple[str, socket.socket]:
        """The slot's listener and its address as bound; made from `address` when there is none yet.

        `OSError` when it cannot be bound, `ValueError` when `address` is none.
        """
        if slot not in self._slots:
            listener = _bind(address)
            bound = address if address.startswith("unix:") else "tcp:{}:{}".format(*listener.getsockname()[:2])
            self._slots[slot] = (bound, listener)
        return self._slots[slot]

    def close(self, slot: str) -> None:
        if slot in self._slots:
            address, listener = self._slots.pop(slot)
            listener.close()
            if address.startswith("unix:"):
                with contextlib.suppress(OSError):
                    Path(address.removeprefix("unix:")).unlink()

    def close_under(self, prefix: str) -> None:
        for slot in [each for each in self._slots if each.startswith(prefix)]:
            self.close(slot)

    def close_all(self) -> None:
        for slot in list(self._slots):
            self.close(slot)


def sweep(folder: Path) -> list[Path]:
    """Remove the sockets on which nobody listens any more, of whoever was killed; gives what went."""
    gone = []
    with contextlib.suppress(OSError):
        gone = [path for path in folder.glob("*.sock") if _is_dead(path)]
    for path in gone:
        with contextlib.suppress(OSError):
            path.unlink()
    return gone


def _is_dead(path: Path) -> bool:
    try:
        # who has just bound it may not listen yet
        if not stat.S_ISSOCK((found := path.lstat()).st_mode) or time.time() - found.st_mtime < _YOUNG:
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _bind(address: str) -> socket.socket:
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        return _bind_unix(Path(rest))
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not port.isdecimal():
        raise ValueError(f"{address!r} is not an address: unix:/path or tcp:host:port")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _bind_unix(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # whoever holds the state lock owns its sockets: what lies there is of a keeper that died
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        # before listen: nobody of another user may have connected by then
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener

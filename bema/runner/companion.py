"""The companion of a program that its launcher took for an app: it says where the program listens, and passes Stop on.

A launcher that expects an app waits for its announcement and says Stop on the channel; a program does neither. Law: as long
as nothing was announced the companion can be withdrawn, and the channel is its successor's, untouched.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from . import listeners

_FIRST = 0.3  # seconds; an import that is over by then costs no look at /proc
_POLL = 0.1
_PATIENCE = 2.0  # seconds that PORT may come after another listener
# the calls that a server stands in while it serves, whichever server it is; a reloader's parent
# waits for its child
_SERVING = frozenset({"serve_forever", "run_forever", "run", "run_with_reloader", "serve", "run_app", "block_thread"})
_NO_SERVERS = frozenset({"subprocess"})  # which have a `run` that only waits


class Companion:
    """Watches from a thread; `serves` says whether the program is one that serves."""

    def __init__(self, channel: socket.socket, init: dict[str, Any], port: int, serves: Callable[[], bool]) -> None:
        self._channel = channel
        self._init = init
        self._port = port
        self._serves = serves
        self._since = time.monotonic()
        self._announcing = threading.Lock()
        self._announced = False
        self._withdrawn = threading.Event()
        self._known = set(listeners.of_processes([os.getpid()]))  # what the launcher passed

    def start(self) -> Companion:
        threading.Thread(target=self._accompany, name="bema-companion", daemon=True).start()
        return self

    def withdraw(self) -> bool:
        """Go, unless it has announced the program: then the channel stays its own."""
        with self._announcing:
            self._withdrawn.set()
            return not self._announced

    def _accompany(self) -> None:
        # the lock and not the event alone: between the last look and the announcement the import
        # may end, and two would speak on one channel
        address = self._found()
        with self._announcing:
            if address is None or self._withdrawn.is_set():
                return
            self._announced = True
        with contextlib.suppress(OSError):
            self._say(self._announcement(address))
            self._pass_stop_on()

    def _found(self) -> str | None:
        """PORT at once; another address once it answers HTTP, PORT has not come for a while, and the program serves."""
        since: dict[str, float] = {}
        pause = _FIRST
        while not self._withdrawn.wait(pause):
            pause = _POLL
            found = [a for a in listeners.of_session(os.getsid(0)) if a not in self._known]
            if asked := listeners.at_port(found, self._port):
                return asked
            now = time.monotonic()
            since = {address: since.get(address, now) for address in found}
            # metrics and debuggers listen first and answer HTTP too; what tells them from the
            # program is that the main thread goes on importing
            for address, seen in since.items():
                if now - seen > _PATIENCE and self._serves() and listeners.answers(address):
                    return address
        return None

    def _announcement(self, address: str) -> dict[str, Any]:
        return {
            "op": "announce",
            "listen": f"127.0.0.1:{self._port}",  # where it was asked to; the launcher follows it when it comes there
            "endpoints": [],
            "instance": self._init.get("instance"),
            "kind": "main",
            "addresses": {"http": [address]},
            "phases": {"listen": round((time.monotonic() - self._since) * 1000)},
        }

    def _say(self, message: dict[str, Any]) -> None:
        self._channel.sendall(json.dumps(message).encode() + b"\n")

    def _pass_stop_on(self) -> None:
        """Stop, or the end of the channel, is SIGTERM to the program and what it started."""
        said = b""
        while b'"shutdown"' not in said.replace(b" ", b""):
            with contextlib.suppress(OSError):
                if more := self._channel.recv(64 * 1024):
                    said = (said + more)[-64 * 1024 :]
                    continue
            break
        # what the program started is told too, as the keeper tells the group of any program
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGTERM)
        else:  # the group is somebody else's
            os.kill(os.getpid(), signal.SIGTERM)


def main_thread_serves() -> bool:
    """Whether the main thread stands in a server: an import that opened a side listener and goes on does not."""
    # there is no other way to tell an import that is slow from one that never ends: sockets look
    # alike
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_name in _SERVING and frame.f_globals.get("__name__") not in _NO_SERVERS:
            return True
        frame = frame.f_back
    return False

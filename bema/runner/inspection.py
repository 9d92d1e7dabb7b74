"""The inside of `bema stack` and `bema profile`: a thread of the instance that tells where its threads and tasks stand.

It is asked over a descriptor that the launcher passed, one JSON object a line, and needs no privilege: nobody attaches to
the process. Laws: the script is never changed or stopped for it; what is read of the script cannot fail its answer; and a
descriptor that the script closed, and whose number it uses again, is neither read nor written.

Where C code holds the interpreter no thread of it can answer: then the launcher sends `SIGNAL`, whose handler, in C itself,
writes the lines of every thread to the same descriptor.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from . import samples, stacks

SIGNAL = signal.SIGRTMAX - 1
_HIGH = 900
_LONGEST = 4096
_SEND = 5.0  # seconds that whoever asked has to read the answer
_LOOK = 500  # milliseconds


class Inspection:
    """Answers on `end` until that is closed by whoever asks, or by the script."""

    def __init__(self, end: socket.socket, folder: str) -> None:
        """`folder` is the script's: what lies there is its author's own."""
        self._end = end
        self._folder = folder
        self._mine = os.fstat(end.fileno())
        self._high: int | None = None
        self._sending = threading.Lock()
        self._sampling = threading.Lock()

    def begin(self) -> None:
        # a full buffer then loses the handler's text, instead of stopping the process in it
        self._end.setblocking(False)
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            # the handler cannot look whose its number is: it gets one that nobody reaches who opens the lowest free
            self._high = fcntl.fcntl(self._end.fileno(), fcntl.F_DUPFD_CLOEXEC, _HIGH)
            faulthandler.register(SIGNAL, file=self._high, all_threads=True)
        threading.Thread(target=self._answer_all, name=f"{stacks.OURS}inspection", daemon=True).start()

    def _answer_all(self) -> None:
        asked = b""
        waiting = select.poll()
        waiting.register(self._end, select.POLLIN)
        with contextlib.suppress(OSError):
            # asked after the wait, too: its number may have become that of another while we waited
            while self._is_mine() and waiting.poll() and self._is_mine():
                more = self._end.recv(_LONGEST)
                if not more:
                    break
                *lines, asked = (asked + more)[-_LONGEST:].split(b"\n")
                for line in lines:
                    self._answer(line)
        self._part()

    def _is_mine(self, number: int | None = None) -> bool:
        """Whether the number still is of the socket that was passed: a script may close all that it did not open."""
        try:
            now = os.fstat(self._end.fileno() if number is None else number)
        except OSError:
            return False
        return (now.st_dev, now.st_ino) == (self._mine.st_dev, self._mine.st_ino)

    def _part(self) -> None:
        with contextlib.suppress(ValueError, RuntimeError):
            faulthandler.unregister(SIGNAL)
        if self._high is not None and self._is_mine(self._high):
            os.close(self._high)
        # its number may be of something that the script opened
        if not self._is_mine():
            self._end.detach()

    def _answer(self, line: bytes) -> None:
        try:
            asked = json.loads(line)
            number, what = int(asked["id"]), asked["ask"]
            seconds, idle = float(asked.get("seconds", 0)), bool(asked.get("idle"))
        except (ValueError, TypeError, KeyError):
            return
        if what == "stack":
            self._tell(number, lambda: stacks.everything(self._folder))
        elif what == "profile" and self._sampling.acquire(blocking=False):
            # in a thread of its own: who asks for a stack meanwhile need not wait for its end
            sampling = threading.Thread(
                target=self._sample, args=(number, seconds, idle), name=f"{stacks.OURS}profile", daemon=True
            )
            sampling.start()
        else:
            self._say({"id": number, "error": "busy" if what == "profile" else f"nobody here answers {what!r}"})

    def _sample(self, number: int, seconds: float, idle: bool) -> None:
        try:
            self._tell(number, lambda: samples.taken(seconds, idle=idle))
        finally:
            self._sampling.release()

    def _tell(self, number: int, look: Callable[[], dict[str, Any]]) -> None:
        try:
            answer = look()
        except Exception as error:  # noqa: BLE001 - the edge of a look: objects of the script may fail it, and the next is told
            answer = {"error": f"{type(error).__name__}: {error}"}
        self._say({"id": number, **answer})

    def _say(self, answer: dict[str, Any]) -> None:
        text = json.dumps(answer).encode() + b"\n"
        with self._sending, contextlib.suppress(OSError):
            if self._is_mine():
                self._send(text)

    def _send(self, text: bytes) -> None:
        # not by `settimeout`: the other thread, which waits for questions, uses the same object
        room, end = select.poll(), time.monotonic() + _SEND
        room.register(self._end, select.POLLOUT)
        left = memoryview(text)
        while left and time.monotonic() < end:
            if room.poll(_LOOK) and self._is_mine():
                with contextlib.suppress(BlockingIOError):
                    left = left[self._end.send(left) :]


def begin(init: dict[str, Any]) -> None:
    """Answer from now on, where the launcher passed a descriptor for it."""
    number = init.get("inspection_fd")
    if number is not None:
        with contextlib.suppress(OSError):
            Inspection(socket.socket(fileno=number), os.path.dirname(init["script"])).begin()  # noqa: PTH120 - a prefix

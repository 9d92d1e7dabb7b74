"""The one place where the keeper waits: descriptors, timers and signals, in one thread."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Callable
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
Callback = Callable[[], object]


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Timer:
    """Cancelled or not; a fired timer is cancelled too."""

    def __init__(self, callback: Callback) -> None:
        self._callback: Callback | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        # taken off before it runs: it may set itself anew
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Loop:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._on_signal: dict[int, Callback] = {}
        self._stopped: int | None = None
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        self.watch(self._wake, READ, self._signalled)

    def watch(self, what: HasFileno | int, events: int, callback: Callback) -> None:
        """Call back whenever one of `events` is so; watching again replaces the old."""
        try:
            self._selector.modify(what, events, callback)
        except KeyError:
            self._selector.register(what, events, callback)

    def forget(self, what: HasFileno | int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(what)

    def after(self, seconds: float, callback: Callback) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def on_signal(self, number: int, callback: Callback) -> None:
        self._on_signal[number] = callback
        # Python's handler does nothing: the wakeup descriptor carries the number into the loop, so
        # no callback ever runs in the middle of another
        signal.signal(number, lambda *_: None)

    def close(self) -> None:
        """Let go of what the loop itself holds."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def stop(self, code: int) -> None:
        self._stopped = code

    def run(self) -> int:
        """Turn until stopped; returns the exit code."""
        while self._stopped is None:
            self.turn()
        return self._stopped

    def turn(self, longest: float | None = None) -> None:
        wait = longest
        if self._timers:
            due = max(0.0, self._timers[0][0] - time.monotonic())
            wait = due if wait is None else min(wait, due)
        # descriptors before timers: what has come may cancel what is due
        for key, _ in self._selector.select(wait):
            # an earlier callback of this turn may have forgotten this one
            if self._selector.get_map().get(key.fd) is key and not _guarded(key.data):
                self.forget(key.fileobj)
        while self._timers and self._timers[0][0] <= time.monotonic():
            _guarded(heapq.heappop(self._timers)[2].fire)

    def _signalled(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._wake.recv(4096):
                if number in self._on_signal:
                    _guarded(self._on_signal[number])


def _guarded(callback: Callback) -> bool:
    """Run it; a defect in one callback must not end what every instance hangs on."""
    try:
        callback()
    except Exception:  # noqa: BLE001 - the process edge
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc()
        return False
    return True

"""Signals: the first SIGTERM or SIGINT asks the services of a process to stop, the second ends the process at once.

Law: the services of one process share the handlers, and the last one to end restores those that were there before.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_asked: list[Callable[[], None]] = []
_before: dict[int, Any] = {}


class Signals:
    """While entered, `asked` is called by the first signal."""

    def __init__(self, asked: Callable[[], None]) -> None:
        self._called = asked

    def __enter__(self) -> None:
        # Python runs signal handlers in the main thread alone, and refuses to install them from another
        if threading.current_thread() is threading.main_thread() and not _asked:
            _install(asyncio.get_running_loop())
        _asked.append(self._called)

    def __exit__(self, *exc: object) -> None:
        _asked.remove(self._called)
        if not _asked:
            _put_back(asyncio.get_running_loop())


def _install(loop: asyncio.AbstractEventLoop) -> None:
    for number in _NUMBERS:
        _before[number] = signal.getsignal(number)
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, _signalled, loop)


def _signalled(loop: asyncio.AbstractEventLoop) -> None:
    for number in _NUMBERS:
        loop.remove_signal_handler(number)
        # the kernel's own: the second signal ends a process whose loop stands still, too
        signal.signal(number, signal.SIG_DFL)
    for asked in tuple(_asked):
        asked()


def _put_back(loop: asyncio.AbstractEventLoop) -> None:
    while _before:
        number, handler = _before.popitem()
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(number)
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)

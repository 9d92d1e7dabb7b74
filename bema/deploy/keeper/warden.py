"""The warden: a process that waits for the keeper to die, then ends the groups on its roster.

The parent-death signal reaches the keeper's children only. What they started themselves, the warden ends; it holds
nothing but the reading end of a pipe that closes with the keeper.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .roster import clear


class Warden:
    def __init__(self, roster: Path) -> None:
        self._roster = roster
        self._reading, self._held = os.pipe()
        self.pid = 0

    def start(self) -> None:
        """Fork it. Called again if somebody kills it."""
        keeper = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._wait(keeper)
            finally:
                os._exit(0)

    def _wait(self, keeper: int) -> None:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(0, self._reading)
        os.closerange(self._reading + 1, os.sysconf("SC_OPEN_MAX"))
        while os.read(self._reading, 1):
            pass
        clear(self._roster, keeper=keeper)

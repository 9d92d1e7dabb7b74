"""A command on a terminal: what it writes there, and what a person types."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable


class Terminal:
    """`bema` with all three streams on a terminal."""

    def __init__(self, *arguments: str, **env: str) -> None:
        self._ours, theirs = pty.openpty()
        # in a session of its own: what is typed as Ctrl-C must not reach the tests
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bema", *arguments],
            env={**os.environ, "TERM": "xterm", **env},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.written = ""

    def until(self, holds: Callable[[str], bool]) -> str:
        """All that was written, once that holds."""
        while not holds(self.written):
            self.written += os.read(self._ours, 65536).decode()
        return self.written

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """The exit code, and all that was written."""
        try:
            while piece := os.read(self._ours, 65536):
                self.written += piece.decode()
        except OSError:  # the other end is closed
            pass
        code = self.process.wait(10)
        os.close(self._ours)
        return code, self.written

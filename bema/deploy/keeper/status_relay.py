"""What an instance says of itself while it serves: the last of it is kept, and passed on.

Law: each status says the whole, so none but the last counts. The first of a burst goes on at once, then at most one in a
while: an instance that says a million costs the orchestrator no more than one that says ten in a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .loop import Loop, Timer

LONGEST = 64 * 1024  # bytes; it is kept, told and listed again and again
_QUIET = 0.1  # seconds


class StatusRelay:
    """`last` is what it said last; `tell` is called when there is something to pass on."""

    def __init__(self, loop: Loop, tell: Callable[[], None]) -> None:
        self.last: dict[str, Any] | None = None
        self._loop = loop
        self._tell = tell
        self._quiet: Timer | None = None
        self._waits = False

    def take(self, message: dict[str, Any]) -> str:
        """Keep what was said; gives the sentence that says why not."""
        said = {key: value for key, value in message.items() if key != "op"}
        # measured as it will be told: what came may have been written with fewer escapes
        size = len(json.dumps(said))
        if size > LONGEST:
            return f"a status of {size} bytes, of which there may be {LONGEST}"
        self.last = said
        self._waits = True
        # the first at once: that an instance is not ready any more must not wait for a period
        if self._quiet is None:
            self._pass_on()
        return ""

    def close(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()

    def _pass_on(self) -> None:
        self._quiet = None
        if self._waits:
            self._waits = False
            self._quiet = self._loop.after(_QUIET, self._pass_on)
            self._tell()

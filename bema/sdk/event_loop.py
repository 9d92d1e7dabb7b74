"""The event loop of processes that bema starts: uvloop if it is installed. `asyncio.run(X.start())` keeps the user's."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, or None for asyncio's own."""
    try:
        return importlib.import_module("uvloop").new_event_loop  # type: ignore[no-any-return]
    except ImportError:
        return None

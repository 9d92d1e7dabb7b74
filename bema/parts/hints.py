"""What was perhaps meant: the end of a sentence about a name that is not there."""

from __future__ import annotations

import importlib
from collections.abc import Iterable


def nearest(wrong: str, right: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing."""
    # every start imports this room, and only a mistake needs difflib
    close = importlib.import_module("difflib").get_close_matches(wrong, list(right), 1)
    return f"; did you mean {close[0]!r}?" if close else ""

"""An answer that is not there yet: what was asked for takes longer than a turn of the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Made = Callable[[], dict[str, Any]]


class Later:
    """`settle` gives the answer, by a call that may refuse; `wanted` says whether whoever asked is still there."""

    def __init__(self) -> None:
        self.settle: Callable[[Made], None] = lambda made: None
        self.wanted: Callable[[], bool] = lambda: False

"""The retry budget: what keeps a failing service from being drowned by its own callers."""

from __future__ import annotations


class RetryBudget:
    """Retries may be a fifth of the calls, and a burst of 256; beyond that a failure is passed on."""

    def __init__(self) -> None:
        self.calls = 0
        self._left = 256.0
        self._counted = 0

    def take(self) -> bool:
        self._left = min(256.0, self._left + (self.calls - self._counted) * 0.2)
        self._counted = self.calls
        if self._left < 1:
            return False
        self._left -= 1
        return True

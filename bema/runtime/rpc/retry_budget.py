"""RetryBudget: how many calls a client may repeat, so that callers do not drown a failing service.

Law: repeats are at most a fifth of the calls, and a burst of 256. Beyond that the caller gets the failure.
"""

from __future__ import annotations


class RetryBudget:
    """The budget of one client. The client counts `calls` itself."""

    # a public number instead of a method: counting is on the path of every call, and `take` only on that of failures
    def __init__(self) -> None:
        self.calls = 0
        self._left = 256.0
        self._counted = 0

    def take(self) -> bool:
        """Take one repeat out of the budget; False where none is left."""
        self._left = min(256.0, self._left + (self.calls - self._counted) * 0.2)
        self._counted = self.calls
        if self._left < 1:
            return False
        self._left -= 1
        return True

"""Reclaim: when an instance that is shown as draining may be told to stop. Pure.

Laws: it is told so once every gateway that is there has said that it saw the instance drain and has nothing in flight there: such
a gateway sends it nothing any more. A gateway that went is not waited for, one that came is. The wait has an end.
"""

from __future__ import annotations

from collections.abc import Collection


class Reclaim:
    """One instance that is taken away, from when it was shown as draining on; `until` is when it is stopped in any case."""

    def __init__(self, until: int) -> None:
        self.until = until
        self._acknowledged: set[int] = set()

    def acknowledge(self, gateway: int) -> None:
        """A gateway has nothing in flight there, and sends nothing more."""
        self._acknowledged.add(gateway)

    def over(self, gateways: Collection[int], now: int) -> bool:
        """Whether it may be stopped, where these gateways are there."""
        return now >= self.until or self._acknowledged.issuperset(gateways)

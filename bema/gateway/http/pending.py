"""PendingRequests: requests that wait in a deployment's kept listener after its instance died, for the next instance.

Laws: such a wait has an end. Where no next instance comes, the request gets the answer that a new one would get. A request
that an instance took is left alone, however slow the instance is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from bema.core.errors import BemaError
from bema.gateway.http.exchange import Exchange
from bema.gateway.routing.choice import InstanceRoute
from bema.gateway.routing.table import RoutingTable

__all__ = ["PendingRequests"]


class PendingRequests:
    def __init__(self, table: RoutingTable, next_instance: Callable[[str], Awaitable[InstanceRoute]]) -> None:
        self._table = table
        self._next_instance = next_instance
        self._asking: dict[Exchange, asyncio.Task[None]] = {}

    def look(self, exchanges: Iterable[Exchange]) -> None:
        """Ask for the next instance on behalf of each exchange whose connection no instance has accepted."""
        for exchange in exchanges:
            # The keeper holds the listener for good, so a dial succeeds although nobody accepts:
            # only the table tells that the instance behind it has gone.
            if _waits(exchange) and exchange not in self._asking and not self._table.present(exchange.to.deployment):
                self._asking[exchange] = asyncio.create_task(self._ask(exchange))

    async def _ask(self, exchange: Exchange) -> None:
        try:
            await self._next_instance(exchange.to.deployment)
        except BemaError as error:
            # Its answer may have begun while we asked.
            if _waits(exchange):
                exchange.fail(error)
        finally:
            del self._asking[exchange]

    def close(self) -> None:
        for asking in self._asking.values():
            asking.cancel()


def _waits(exchange: Exchange) -> bool:
    return exchange.upstream is not None and not exchange.answered

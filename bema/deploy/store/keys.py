"""The keys of the API in the store: a record of each, by its name.

Laws: names are unique; what is revoked is forgotten, and who follows hears of each change after it is durable. A record that
cannot be read names nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import msgspec

from bema.core.clock import Clock
from bema.core.errors import Conflict, NotFound
from bema.core.keys import ApiKey
from bema.deploy.store.deployments import Store

logger = logging.getLogger(__name__)

_PREFIX = "key/"


class KeyRecords:
    """The keys that a store holds."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._changing = asyncio.Lock()
        self._changed = asyncio.Event()

    def all(self) -> list[ApiKey]:
        """Every key, those that are over too, in the order of their names."""
        found: list[ApiKey] = []
        for name, text in sorted(self._store.facts(_PREFIX).items()):
            try:
                found.append(msgspec.json.decode(text, type=ApiKey))
            except msgspec.DecodeError as error:
                logger.error("the record of the key %s cannot be read: %s", name, error)
        return found

    async def add(self, key: ApiKey) -> None:
        """Keep a key; `Conflict` (key_exists) while another of its name is in force."""
        async with self._changing:
            if any(other.name == key.name and not other.over(self._clock.now()) for other in self.all()):
                raise Conflict(f"a key named {key.name!r} exists", code="key_exists")
            await self._write(key.name, msgspec.json.encode(key).decode())

    async def revoke(self, name: str) -> None:
        """Forget a key; `NotFound` where there is none of that name."""
        async with self._changing:
            if name not in self._store.facts(_PREFIX):
                raise NotFound(f"there is no key named {name!r}", fix="`bema keys ls` lists them.")
            await self._write(name, None)

    async def follow(self) -> AsyncIterator[list[ApiKey]]:
        """All keys, now and after each change."""
        while True:
            # taken before the look: a change between look and wait must wake us
            changed = self._changed
            yield self.all()
            await changed.wait()

    async def _write(self, name: str, text: str | None) -> None:
        await self._store.remember(_PREFIX + name, text)
        self._changed.set()
        self._changed = asyncio.Event()

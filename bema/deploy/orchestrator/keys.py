"""The operations on keys of the API: an administrator makes and revokes them, and the gateway hears of each."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator

import msgspec

from bema.core.access import Principal, Scope
from bema.core.keys import ApiKey, check_user
from bema.deploy.orchestrator.acting import acting
from bema.deploy.orchestrator.parts import Parts
from bema.sdk.decorators import endpoint


class KeyOperations:
    """A part of the orchestrator."""

    _parts: Parts

    @endpoint
    async def add_key(self, key: ApiKey, principal: Principal) -> ApiKey:
        """Let who shows the key of that digest in, until it expires or is revoked."""
        acting(principal, Scope.KEYS)
        check_user(key.name, "key name")
        check_user(key.user)
        made = msgspec.structs.replace(key, created=self._parts.clock.now())
        await self._parts.keys.add(made)
        return made

    @endpoint(idempotent=True)
    async def keys(self, principal: Principal) -> builtins.list[ApiKey]:
        acting(principal, Scope.KEYS)
        return self._parts.keys.all()

    @endpoint
    async def revoke_key(self, name: str, principal: Principal) -> None:
        """Let nobody in with it any more."""
        acting(principal, Scope.KEYS)
        await self._parts.keys.revoke(name)

    # each item is the whole, so that it begins anew with whoever is the orchestrator then
    @endpoint(resumable=True)
    async def credentials(self, principal: Principal) -> AsyncIterator[builtins.list[ApiKey]]:
        """All keys, now and after each change."""
        acting(principal, Scope.CREDENTIALS)
        async for keys in self._parts.keys.follow():
            yield keys

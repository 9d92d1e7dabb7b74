"""Waiting for a deployment that has no instance: one question for all who wait, and an answer for each."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from bema.core.errors import NotFound
from bema.core.limits import DEFAULTS
from bema.gateway.routing.activator import Activator
from bema.gateway.routing.table import RoutingTable
from bema.runtime.discovery.memory import MemoryDiscovery


@pytest.mark.parametrize("turns", range(6))
def test_who_comes_when_the_last_one_leaves_is_answered(turns):
    async def activate(deployment: str, wait: float):
        await asyncio.sleep(0.05)
        raise NotFound("no such deployment")

    async def story():
        activator = Activator(RoutingTable(await MemoryDiscovery().view()), activate, DEFAULTS)
        leaving = asyncio.create_task(activator.wait("x"))
        await asyncio.sleep(0.01)
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        for _ in range(turns):
            await asyncio.sleep(0)
        with pytest.raises(NotFound):
            await activator.wait("x")

    asyncio.run(asyncio.wait_for(story(), 5))

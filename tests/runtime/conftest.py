"""Fixtures of the runtime's tests."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator

import pytest


@pytest.fixture(params=["asyncio", "uvloop"])
def each_loop(request: pytest.FixtureRequest) -> Iterator[str]:
    """`asyncio.run` uses this event loop."""
    if request.param == "uvloop":
        asyncio.set_event_loop_policy(importlib.import_module("uvloop").EventLoopPolicy())
    yield request.param
    asyncio.set_event_loop_policy(None)

"""Programs as the documentation of their frameworks writes them answer below the gateway's prefix."""

from __future__ import annotations

import asyncio

import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from tests.stories.frameworks import HERE, MCP, ask
from tests.stories.harness import Platform

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", HERE)
def test_a_program_finds_its_paths_redirects_and_cookies(running: Platform, name: str) -> None:
    ask(running, name)


def test_a_low_level_mcp_server_is_served(running: Platform) -> None:
    made = running.deploy("low-level", MCP.script())

    async def call() -> str:
        async with (
            streamable_http_client(f"{made['url'].rstrip('/')}/mcp") as (read, write, *_),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return str((await session.call_tool("hello", {})).content)

    assert "hello" in asyncio.run(call())

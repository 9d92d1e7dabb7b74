"""FastMCP: background tasks on its backend in memory, each one tool call; a task stands for a step."""

import asyncio
import logging
import sys
import time

from fastmcp import Client, FastMCP
from fastmcp_tasks.extension import TasksExtension

_, CALLERS, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

logging.disable(logging.WARNING)
mcp = FastMCP("bench")
mcp.add_extension(TasksExtension(url="memory://", concurrency=64))


@mcp.tool(task=True)
async def add(number: int) -> int:
    return number + 1


async def rate() -> float:
    async with Client(mcp) as client:
        await client.call_tool("add", {"number": 1})
        began, made = time.monotonic(), 0

        async def calling() -> None:
            nonlocal made
            while time.monotonic() < began + SECONDS:
                assert (await client.call_tool("add", {"number": 1})).data == 2
                made += 1

        await asyncio.gather(*(calling() for _ in range(CALLERS)))
        return made / (time.monotonic() - began)


print(asyncio.run(rate()))

# /// script
# requires-python = ">=3.11"
# dependencies = ["fastapi>=0.115,<1"]
# ///
"""A FastAPI script: `bema deploy examples/api.py`, then ask the URL it prints:

curl $URL/greet/ada
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI(title="api")


@app.get("/greet/{name}")
async def greet(name: str) -> dict[str, str]:
    return {"greeting": f"hello {name}"}


@app.get("/count")
async def count(to: int = 5, pause: float = 0.1) -> StreamingResponse:
    """Numbers as server-sent events, one at a time."""

    async def numbers() -> AsyncIterator[str]:
        for number in range(1, to + 1):
            yield f"data: {number}\n\n"
            await asyncio.sleep(pause)

    return StreamingResponse(numbers(), media_type="text/event-stream")

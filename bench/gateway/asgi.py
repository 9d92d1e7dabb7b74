"""The usual Python proxy: an ASGI app on uvicorn that calls the backend with aiohttp. `asgi.py PORT BACKEND_PORT PREFIX`."""

from __future__ import annotations

import sys
from typing import Any

import aiohttp  # type: ignore[import-not-found,unused-ignore] # only in the peers' environment
import uvicorn

HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"host", b"content-length"}
PORT, BACKEND, PREFIX = int(sys.argv[1]), sys.argv[2], sys.argv[3]
session: Any = None


async def app(scope: Any, receive: Any, send: Any) -> None:
    global session
    if scope["type"] != "http":
        return
    if session is None:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        )
    headers = {name.decode(): value.decode() for name, value in scope["headers"] if name not in HOP}
    url = f"http://127.0.0.1:{BACKEND}{scope['path'].removeprefix(PREFIX)}"
    async with session.request(scope["method"], url, headers=headers) as answer:
        kept = [(k.lower(), v) for k, v in answer.raw_headers if k.lower() not in (b"transfer-encoding", b"connection")]
        await send({"type": "http.response.start", "status": answer.status, "headers": kept})
        async for chunk in answer.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


uvicorn.run(
    app, port=PORT, loop="uvloop", http="httptools", access_log=False, log_level="warning", lifespan="off", backlog=4096
)

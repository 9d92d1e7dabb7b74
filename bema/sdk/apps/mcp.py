"""MCP servers: `MCPServer` and `FastMCP` of the package `mcp`, `FastMCP` of `fastmcp`, served over streamable HTTP.

Law: they are recognised by the method that gives their app, so that neither package is imported here. The low-level `Server` of
mcp 1 has no such method: its session manager is the app.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bema.sdk.apps.http_app import HttpApp, Scope
from bema.wire.module.handshake import EndpointAnnounce

PATH = "/mcp"
_METHODS = ["GET", "POST", "DELETE"]


class McpServer:
    def adapt(self, target: Any) -> HttpApp | None:
        if isinstance(target, type) or not type(target).__module__.startswith(("mcp.", "fastmcp.")):
            return None
        # both packages have a FastMCP: `mcp` names the path in its settings, `fastmcp` takes it as
        # an argument
        if hasattr(target, "streamable_http_app"):
            path = getattr(getattr(target, "settings", None), "streamable_http_path", PATH)
            return _adapted(target.streamable_http_app(), path)
        if hasattr(target, "http_app"):
            return _adapted(target.http_app(path=PATH), PATH)
        if type(target).__module__.startswith("mcp.server.lowlevel"):
            from mcp.server.streamable_http_manager import (  # noqa: PLC0415 - the script's own
                StreamableHTTPSessionManager,
            )

            return _adapted(_Sessions(StreamableHTTPSessionManager(target)), PATH)
        return None


def _adapted(app: Any, path: str) -> HttpApp:
    # its sessions live in the app's lifespan
    return HttpApp("mcp", app, [EndpointAnnounce(path, _METHODS)], lifespan="on")


class _Sessions:
    """The ASGI app of a session manager."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "lifespan":
            # the manager's task group must be entered and left by one task, and lifespan is the
            # only one that lasts
            await receive()
            async with self._manager.run():
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "http" and scope["path"].rstrip("/") == PATH:
            await self._manager.handle_request(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})

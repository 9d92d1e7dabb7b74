"""MCP servers: `MCPServer` and `FastMCP` of the package `mcp`, `FastMCP` of `fastmcp`, served over streamable HTTP.

Law: they are recognised by the method that gives their app, so that neither package is imported here.
"""

from __future__ import annotations

from typing import Any

from bema.sdk.apps.http_app import HttpApp
from bema.wire.module.handshake import EndpointAnnounce

PATH = "/mcp"
_METHODS = ["GET", "POST", "DELETE"]


class McpServer:
    def adapt(self, target: Any) -> HttpApp | None:
        if isinstance(target, type) or not type(target).__module__.startswith(("mcp.", "fastmcp.")):
            return None
        if hasattr(target, "streamable_http_app"):
            path = getattr(getattr(target, "settings", None), "streamable_http_path", PATH)
            return _adapted(target.streamable_http_app(), path)
        if hasattr(target, "http_app"):
            return _adapted(target.http_app(path=PATH), PATH)
        return None


def _adapted(app: Any, path: str) -> HttpApp:
    # its sessions live in the app's lifespan
    return HttpApp("mcp", app, [EndpointAnnounce(path, _METHODS)], lifespan="on")

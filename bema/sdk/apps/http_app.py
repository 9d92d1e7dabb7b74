"""HttpApp: the one form of everything that answers HTTP, an ASGI app with its routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal, NamedTuple

from bema.wire.module.handshake import EndpointAnnounce

Scope = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Callable[..., Any], Callable[..., Any]], Awaitable[None]]


class HttpApp(NamedTuple):
    kind: Literal["asgi", "wsgi", "mcp"]
    app: ASGIApp
    endpoints: list[EndpointAnnounce]
    lifespan: Literal["auto", "on", "off"] = "auto"

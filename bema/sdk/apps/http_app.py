"""HttpApp: the one form of everything that answers HTTP, an ASGI app with its routes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal, NamedTuple

from bema.wire.module.handshake import EndpointAnnounce

Scope = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Callable[..., Any], Callable[..., Any]], Awaitable[None]]
Serve = Callable[["HttpApp", socket.socket, Callable[[], None], "asyncio.Future[float]"], Awaitable[bool]]
"""Serves an app on a bound socket: calls when it is ready, ends within what `stop` gives, tells whether nothing was cut."""
Holders = Callable[[], object | None]
"""What tells the calls that hold every thread of an app from others; None while a thread is free. Called in the loop."""


class HttpApp(NamedTuple):
    kind: Literal["asgi", "wsgi", "mcp", "app"]
    app: ASGIApp
    endpoints: list[EndpointAnnounce]
    lifespan: Literal["auto", "on", "off"] = "auto"
    holders: Holders = lambda: None
    serve: Serve | None = None  # where it has a server of its own, and `app` is no ASGI app

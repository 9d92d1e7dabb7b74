"""aiohttp applications. They speak no interface but their own server's, so that serves them, on the socket that was passed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from bema.sdk.apps.http_app import HttpApp
from bema.wire.module.handshake import EndpointAnnounce

_CUT = 0.1  # seconds for what was cut to run its `finally`


class AiohttpServer:
    def adapt(self, target: Any) -> HttpApp | None:
        # by name along the bases, so that aiohttp is not imported for scripts that have none
        if not any(
            (cls.__module__, cls.__name__) == ("aiohttp.web_app", "Application") for cls in type(target).__mro__
        ):
            return None
        endpoints = [EndpointAnnounce(route.resource.canonical, [route.method]) for route in target.router.routes()]
        return HttpApp("app", target, endpoints or [EndpointAnnounce("/", ["*"])], serve=serve)


async def serve(
    adapted: HttpApp, listener: socket.socket, ready: Callable[[], None], stop: asyncio.Future[float]
) -> bool:
    """Serve until `stop` gives the seconds that running requests have. True when none had to be cut."""
    from aiohttp import web  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - the script's own

    app: Any = adapted.app
    running: list[object] = []
    idle = asyncio.Event()

    @web.middleware  # type: ignore[untyped-decorator,unused-ignore]
    async def counted(request: Any, handler: Callable[[Any], Any]) -> Any:
        running.append(None)
        try:
            return await handler(request)
        finally:
            running.pop()
            idle.set()

    # aiohttp's own shutdown does not tell whether it cut a request
    app.middlewares.insert(0, counted)
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=_CUT)
    await runner.setup()
    try:
        site = web.SockSite(runner, listener)
        await site.start()
        ready()
        grace = await stop
        await site.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while running:
                    idle.clear()
                    await idle.wait()
        return not running
    finally:
        await runner.cleanup()

"""ASGI apps, served by uvicorn. Law: the app listens on the socket that the launcher passed and on nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from collections.abc import Callable, Iterator
from typing import Any

from bema.core.errors import Failed, Refused
from bema.sdk.apps.http_app import ASGIApp, HttpApp, Scope
from bema.sdk.apps.root_path import behind_prefix
from bema.wire.module.handshake import EndpointAnnounce


class AsgiServer:
    def adapt(self, target: Any) -> HttpApp | None:
        if isinstance(target, type) or not callable(target):
            return None
        call = target if inspect.isroutine(target) else type(target).__call__
        if not inspect.iscoroutinefunction(call) and _positional(target) != 3:
            return None
        return HttpApp("asgi", target, list(_routes(target)))


def _positional(target: Any) -> int:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return -1
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _routes(app: Any) -> Iterator[EndpointAnnounce]:
    """The routes of a Starlette or FastAPI app; `/` for any other app."""
    found = [route for route in getattr(app, "routes", ()) if hasattr(route, "path")]
    for route in found:
        yield EndpointAnnounce(route.path, sorted(getattr(route, "methods", None) or ["*"]))
    if not found:
        yield EndpointAnnounce("/", ["*"])


class _Running:
    """Counts the running calls of an app; `cut` is true once a call was cancelled after `stop`."""

    def __init__(self, app: ASGIApp, stop: asyncio.Future[float]) -> None:
        self.now = 0
        self.cut = False
        self._app = app
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        called = scope["type"] != "lifespan"
        self.now += called
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            self.cut |= called and self._stop.done()
            raise
        finally:
            self.now -= called


async def serve(
    adapted: HttpApp, listener: socket.socket, ready: Callable[[], None], stop: asyncio.Future[float]
) -> bool:
    """Serve an app until `stop` gives the seconds that running requests still have, then cut the rest.

    Returns whether nothing had to be cut.

    Raises:
        Failed: the start-up of the app fails.
        Refused: uvicorn is not installed (code `missing_extra`).
    """
    try:
        import uvicorn  # noqa: PLC0415 - extra
    except ImportError as error:
        raise Refused("serving an app needs uvicorn", code="missing_extra", fix="Install bema[http].") from error

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if self.started:
                ready()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # the boot handles signals: uvicorn would replace its handlers

    running = _Running(behind_prefix(adapted.app), stop)
    server = Server(
        uvicorn.Config(
            running,
            lifespan=adapted.lifespan,
            log_config=None,
            access_log=False,
            server_header=False,
            forwarded_allow_ips="*",  # nobody but the gateway reaches this socket
            ws="auto",
        )
    )

    def ask(asked: asyncio.Future[float]) -> None:
        server.config.timeout_graceful_shutdown = asked.result()  # type: ignore[assignment]
        server.should_exit = True

    stop.add_done_callback(ask)
    await server.serve(sockets=[listener])
    if not server.started:
        raise Failed("the app's start-up failed: its log says why")
    return not running.now and not running.cut

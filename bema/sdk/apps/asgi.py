"""ASGI apps, served by uvicorn. Law: the app listens on the socket that the launcher passed and on nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bema.core.errors import Failed, Refused
from bema.sdk.apps.http_app import ASGIApp, HttpApp, Scope
from bema.sdk.apps.root_path import behind_prefix
from bema.wire.module.handshake import EndpointAnnounce

logger = logging.getLogger(__name__)

_NO_WEBSOCKETS = "the app was asked for a WebSocket, and no library for it is installed here: add `websockets` to the script's dependencies"


class AsgiServer:
    def adapt(self, target: Any) -> HttpApp | None:
        # the `__call__` that is found in a class is its objects': by it the class would pass for an
        # app
        if isinstance(target, type) or not callable(target):
            return None
        call = target if inspect.isroutine(target) else type(target).__call__
        if not _takes_three(target, told=inspect.iscoroutinefunction(call)):
            return None
        return HttpApp("asgi", target, list(_routes(target)), holders=_thread_holders)


def _takes_three(target: Any, *, told: bool) -> bool:
    """Whether `target` is called with scope, receive and send; `told` that it is a coroutine function, so that `*args` will do."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return told
    if told and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return True
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) == 3


def _thread_holders() -> object | None:
    """Who holds the threads that anyio runs plain functions in: Starlette's, FastAPI's and others' have no other."""
    to_thread = getattr(sys.modules.get("anyio"), "to_thread", None)
    if to_thread is None:
        return None
    # asked in the loop, since the limiter is the loop's; `sys.modules`, since an app without anyio
    # needs none
    pool = to_thread.current_default_thread_limiter().statistics()
    full = pool.borrowed_tokens >= pool.total_tokens and pool.tasks_waiting
    return frozenset(map(id, pool.borrowers)) if full else None


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
            # before `stop` it was the client that left, and nothing of ours was cut short
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
            # announced here and not before `serve`: the lifespan of the app has run, so its
            # database is open
            if self.started:
                ready()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # the boot handles signals: uvicorn would replace its handlers

        def install_signal_handlers(self) -> None:
            """The same, for uvicorn before 0.29."""

    running = _Running(behind_prefix(adapted.app), stop)
    # 0.13.4 has neither `server_header` nor a graceful timeout
    known = inspect.signature(uvicorn.Config).parameters
    options = {
        "lifespan": adapted.lifespan,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "forwarded_allow_ips": "*",  # nobody but the gateway reaches this socket
        "ws": "auto",
    }
    # the script's own uvicorn wins over ours, and may be older than an option
    told: Any = {name: value for name, value in options.items() if name in known}
    app = _told_of_websockets(running, lambda: server.config.ws_protocol_class is not None)
    server = Server(uvicorn.Config(app, **told))

    def ask(asked: asyncio.Future[float]) -> None:
        grace = asked.result()
        server.should_exit = True
        if "timeout_graceful_shutdown" in known:
            server.config.timeout_graceful_shutdown = grace  # type: ignore[assignment]
        else:
            asyncio.get_running_loop().call_later(grace, setattr, server, "force_exit", True)

    stop.add_done_callback(ask)
    await server.serve(sockets=[listener])
    if not server.started:
        raise Failed("the app's start-up failed: its log says why")
    return not running.now and not running.cut


def _told_of_websockets(app: ASGIApp, spoken: Callable[[], bool]) -> ASGIApp:
    """`app`, where nobody speaks WebSocket: uvicorn would let it answer the upgrade as a plain GET, so with 404 at most."""

    async def told(scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] != "http" or spoken() or (b"upgrade", b"websocket") not in _lowered(scope["headers"]):
            await app(scope, receive, send)
            return
        logger.warning(_NO_WEBSOCKETS)
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": 501, "headers": headers})
        await send({"type": "http.response.body", "body": _NO_WEBSOCKETS.encode()})

    return told


def _lowered(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    return ((name, value.lower()) for name, value in headers)

"""WSGI apps, each request on a thread of a2wsgi's pool.

Law: an answer whose client has left is closed at its next piece, so that its thread is free again: WSGI has no other way to
tell an app.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from threading import Event
from typing import Any

from bema.core.errors import Refused
from bema.sdk.apps.http_app import ASGIApp, HttpApp, Scope
from bema.wire.module.handshake import EndpointAnnounce

_LEFT = "bema.left"
_THREADS = 40


class WsgiServer:
    def adapt(self, target: Any) -> HttpApp | None:
        if not callable(target) or isinstance(target, type) or _positional(target) != 2:
            return None
        try:
            from a2wsgi import WSGIMiddleware  # noqa: PLC0415 - extra
        except ImportError as error:
            raise Refused(
                "serving a WSGI app needs a2wsgi", code="missing_extra", fix="Install bema[platform], or add a2wsgi."
            ) from error
        app: Any = WSGIMiddleware(_until_left(target), workers=_THREADS)
        watched = _Watched(app)
        return HttpApp("wsgi", watched, [EndpointAnnounce("/", ["*"])], lifespan="off", holders=watched.holders)


def _positional(target: Any) -> int:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return -1
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)


def _until_left(target: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return _Pieces(target(environ, start_response), environ["asgi.scope"][_LEFT])

    return app


class _Pieces:
    """The pieces of an answer, as long as somebody is there to take them."""

    def __init__(self, pieces: Iterable[bytes], left: Event) -> None:
        self._pieces = pieces
        self._left = left

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            # nobody can stop a generator that another thread runs: between two pieces is the first
            # chance
            if self._left.is_set():
                return
            yield piece

    def close(self) -> None:
        getattr(self._pieces, "close", lambda: None)()


class _Watched:
    """Sees that the client leaves: reads one message ahead of the app, which reads only what it needs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._running = 0
        self._ended = 0

    def holders(self) -> int | None:
        """The same number as long as no call has ended: then those that run are the ones that ran."""
        return self._ended if self._running >= _THREADS else None

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # a thread's event: it is set in the loop and looked at in the thread of the call
        left = scope[_LEFT] = Event()
        # one message and no more: an upload that the app does not read must not gather in memory
        ahead: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1)

        async def watch() -> None:
            while not left.is_set():
                message = await receive()
                if message["type"] == "http.disconnect":
                    left.set()
                await ahead.put(message)

        watching = asyncio.create_task(watch())
        self._running += 1
        try:
            await self.app(scope, ahead.get, send)
        finally:
            self._running -= 1
            self._ended += 1
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

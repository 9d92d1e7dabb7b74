"""ServerThread: an ASGI app in a thread of its own, which answers while the event loop of the process is blocked.

Laws: the thread lives until `close`, or until the loop that it belongs to is closed without it. It shares with that loop
only what the app reads. A forked child has neither the thread nor the listener.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future

from bema.runtime import forks
from bema.sdk.apps import asgi
from bema.sdk.apps.http_app import ASGIApp, HttpApp

GRACE = 1.0  # seconds that running requests have at the end
LOOKS = 1.0  # seconds between looks at whether the loop has been closed

_log = logging.getLogger("bema.status")


class ServerThread:
    """Serves from when it is made, for the services of `loop`. It calls `abandoned` if the loop is closed first."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        loop: asyncio.AbstractEventLoop,
        abandoned: Callable[[], object],
    ) -> None:
        self._app = app
        self._abandoned = abandoned
        self._listener = listener
        self._loop = loop
        self._descriptor = listener.fileno()
        forks.close_in_children(self._descriptor)
        self._stop: Future[float] = Future()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="bema-status", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """End the thread; called in the loop of the services. Does nothing in a forked child."""
        if forks.forget(self._descriptor) and not self._ended.is_set():
            self._stop.set_result(GRACE)
            await self._ended.wait()
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:  # noqa: BLE001 - the edge of a thread: the services live on without their status
            _log.exception("the status of this process ended")
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._ended.set)

    async def _serve(self) -> None:
        adapted = HttpApp("asgi", self._app, [], "off")
        stop = asyncio.wrap_future(self._stop)
        serving = asyncio.ensure_future(asgi.serve(adapted, self._listener, lambda: None, stop))
        while not serving.done():
            await asyncio.wait({serving}, timeout=LOOKS)
            # a program may end its loop without ending its services; nobody else would close the
            # listener then
            if self._loop.is_closed() and forks.forget(self._descriptor):
                self._stop.set_result(0.0)
                self._abandoned()
        serving.result()

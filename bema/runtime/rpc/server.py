"""Server: routes and their handlers, served to many connections at many addresses.

`add` takes a handler and the spec of its endpoint; everything that can be wrong with either is said there and not when
the first call comes. `drain` is the polite end: refuse what is new as never run, hand over the streams that can go on elsewhere, finish what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from bema.core.call import Handler
from bema.core.errors import Conflict, StreamCut
from bema.core.settings import Settings, current
from bema.core.spec import EndpointSpec
from bema.runtime import forks
from bema.runtime.rpc import transports
from bema.runtime.rpc.admission import Admission
from bema.runtime.rpc.codec import CodecFactory
from bema.runtime.rpc.routes import Route, RouteTable
from bema.runtime.rpc.server_call import HANDED_OVER
from bema.runtime.rpc.server_connection import ServerConnection

SETTLE = 0.5  # seconds that a drain waits for callers to have read that it goes


class Server(RouteTable[ServerConnection]):
    """Answers calls. Every peer must show `token`; at most `slots` calls run at once, and `queue` more wait for a slot."""

    def __init__(
        self,
        token: str = "",
        *,
        name: str = "",
        settings: Settings | None = None,
        slots: int | None = None,
        queue: int = 0,
    ) -> None:
        self.settings = current() if settings is None else settings
        super().__init__(token, name, self.settings.limits)
        self.codec = CodecFactory.open(self.settings)
        self._admission = None if slots is None else Admission(slots, queue)
        self.accepts: Callable[[asyncio.AbstractEventLoop, RouteTable[ServerConnection]], ServerConnection] = (
            ServerConnection
        )
        self._listeners: list[transports.Listening] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        forks.tell_children(self._forked)

    def add(self, route: str, handler: Handler, spec: EndpointSpec, admission: Admission | None = None) -> None:
        """Serve `handler` at `route`. Its form follows `spec.shape`; a `threaded` one is a plain function or generator.

        `admission` bounds how many calls run at once on the routes that share it; without one, the server's own applies.
        `spec.facts["requests"]` is the item type of an incoming stream, `spec.facts["raises"]` the exception types that
        travel as themselves. `Conflict` (code `already_served`) where the route is taken.
        """
        if route in self.routes:
            raise Conflict(f"{route} is served already", code="already_served")
        self.routes[route] = added = Route(route, handler, spec, admission or self._admission, self.codec)
        if self.log is not None:
            self.log.add(added)

    def add_built_in(self, route: str, handler: Handler, spec: EndpointSpec) -> None:
        """Serve an endpoint that every component has, without admission. Safe to call twice."""
        if route not in self.routes:
            self.routes[route] = Route(route, handler, spec, None, self.codec)

    def remove(self, route: str) -> None:
        """Stop serving a route; running calls finish."""
        self.routes.pop(route, None)

    async def listen(self, where: str | socket.socket) -> str:
        """Accept connections at an address or on a listening socket; returns the address, its port filled in."""
        self._loop = asyncio.get_running_loop()
        listener = await transports.listen(where, self._accept(), self.settings)
        self._listeners.append(listener)
        return listener.address

    def _accept(self) -> Callable[[], ServerConnection]:
        loop = asyncio.get_running_loop()
        return lambda: self.accepts(loop, self)

    def _forked(self) -> None:
        for connection in self.connections:
            connection.forked()
        # code that is no handler comes back to the loop alone, whose poller the child shares with its parent
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it was closed, or is another thread's, which is not here
                self._loop.call_soon(forks.leave)

    # ending

    async def drain(self, grace: float | None = None) -> bool:
        """Refuse new calls, give running ones `grace` seconds (None: the limit `drain`), and cut the rest.

        Returns whether nothing had to be cut.
        """
        grace = self.limits.drain if grace is None else grace
        self._take_no_more()
        self._hand_over()
        # before the calls are waited for: callers go elsewhere while these finish
        settling = [connection.go_away() for connection in self.connections if not connection.closed]
        try:
            async with asyncio.timeout(grace):
                await self._wait_idle()
        except TimeoutError:
            await self._cut()
            return False
        if settling:
            await asyncio.wait(settling, timeout=min(SETTLE, grace))
        return True

    def _take_no_more(self) -> None:
        self.draining = True
        # the same test that bounds a connection refuses the calls of a drain: it costs a call
        # nothing
        self.most = 0

    def _hand_over(self) -> None:
        """End the streams whose callers continue them elsewhere: a drain would wait for them to their end."""
        for connection in self.connections:
            for call in [call for call in connection.calls.values() if call.continues]:
                connection.end(call, HANDED_OVER)

    async def _wait_idle(self) -> None:
        while self.inflight:
            self.idle = asyncio.Event()
            await self.idle.wait()

    async def _cut(self) -> None:
        running = [call for connection in self.connections for call in connection.calls.values()]
        cut = StreamCut("the instance stopped before the call ended", instance_stopped=True)
        for call in running:
            call.conn.end(call, HANDED_OVER if call.continues else cut)
        if tasks := [call.task for call in running if call.task is not None]:
            # a handler may hold on to its cancellation; the end does not wait for it
            await asyncio.wait(tasks, timeout=1.0)

    async def close(self) -> None:
        """Stop listening, cut running calls, close every connection. Safe to call twice."""
        self._take_no_more()
        self._loop = None
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        await self._cut()
        for connection in tuple(self.connections):
            connection.close()
        await asyncio.sleep(0)

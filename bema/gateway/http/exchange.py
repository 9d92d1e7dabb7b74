"""Exchange: one request and its answer, spliced between a client's connection and an instance's.

Laws: nothing is kept that can be passed on. A body that arrives before an instance is there waits in `_pending`, which is
bounded, since the client is then not read any further. A side that is slow stops the other from being read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from bema.core.errors import BemaError
from bema.gateway.http.answers import error_answer
from bema.gateway.http.bodies import Body, Chunked, SizedBody, chunk
from bema.gateway.http.dispatcher import Dispatcher, unreached
from bema.gateway.http.forwarding import request_head, response_head, start_timing, status_line, trace
from bema.gateway.http.heads import RequestHead, ResponseHead, tokens
from bema.gateway.http.transport import FULL_PENDING, FULL_UPSTREAM, ClientTransport
from bema.gateway.http.upstream import Upstream
from bema.gateway.routing.activity import Activity
from bema.gateway.routing.choice import InstanceRoute, Seat
from bema.gateway.routing.decision import Forward

__all__ = ["Door", "Exchange"]

_log = logging.getLogger("bema.gateway")

_PENDING = 64 * 1024
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})  # RFC 9110 9.2.2


class Exchange:
    __slots__ = (
        "_activity",
        "_dispatcher",
        "_door",
        "_encode",
        "_pending",
        "_pending_size",
        "_place",
        "_repeatable",
        "_started",
        "_task",
        "_timer",
        "_woke",
        "_woken",
        "answered",
        "client",
        "complete",
        "head",
        "keep",
        "method",
        "to",
        "trace",
        "tunnel",
        "upstream",
    )

    def __init__(
        self, client: ClientTransport, dispatcher: Dispatcher, door: Door, head: RequestHead, to: Forward
    ) -> None:
        self.client = client
        self.head = head
        self.method = head.method
        self.to = to
        self.complete = False
        self.tunnel = False
        self.answered = False
        self.keep = False
        self.trace = trace(head)
        self.upstream: Upstream | None = None
        self._dispatcher = dispatcher
        self._door = door
        self._place: Seat | None = None
        self._activity: Activity | None = None
        self._encode = False
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._repeatable = False
        self._started = time.perf_counter()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._woke = False  # it waited for an instance to start
        self._woken: asyncio.Event | None = None  # a door waits for the body, or for room

    @property
    def trace_id(self) -> str:
        return self.trace[3:35]

    @property
    def timing(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers of an answer that say what its request waited for; none where it waited for no start."""
        return (start_timing(self._place.instance),) if self._woke and self._place is not None else ()

    @property
    def leaving(self) -> asyncio.Event:
        """Set when this listener drains: an answer whose client can go on elsewhere ends then, and holds nothing up."""
        return self._dispatcher.leaving

    # called from the client's side

    def start(self) -> None:
        dispatcher, deployment = self._dispatcher, self.to.deployment
        place = dispatcher.admission.take(deployment, self.head)
        if place is not None:
            self._held(place)
            if (upstream := dispatcher.idle(place)) is not None:
                self._attach(upstream)
                return
        self._task = asyncio.get_running_loop().create_task(self._reach())

    def feed(self, payload: bytes, done: bool) -> None:
        """Take a part of the request's body; `done` says that it is the last."""
        self.complete = done
        if self.upstream is not None:
            self.upstream.transport.write(self._framed(payload, done))
            return
        self._pending.append(payload)
        self._pending_size += len(payload)
        if self._woken is not None:
            self._woken.set()
        elif self._pending_size > _PENDING and not done:
            self.client.hold(FULL_PENDING, True)

    def abandon(self) -> None:
        """End the exchange because the client went away. The instance sees its connection close at once."""
        if self._task is not None:
            self._task.cancel()
        if self.upstream is not None:
            self.upstream.let_go()
        # 499 is nginx's for a client that closed first: the counters must not show it as a failure of the instance
        if not self.answered:
            self._count(499)
        self._leave()

    def client_full(self, full: bool) -> None:
        if self.upstream is not None:
            self.upstream.pause(full)
        elif self._woken is not None:
            self._woken.set()

    def _may_repeat(self) -> bool:
        # the whole request is here, and running it twice is what its method allows
        return self.complete and self.method in _IDEMPOTENT

    async def _reach(self, fresh: bool = False) -> None:
        try:
            reached = await self._reached(fresh)
            if isinstance(reached, Upstream):
                self._attach(reached)
            else:
                await self._door(self, reached)
        except BemaError as error:
            self.fail(error)
        except Exception:  # noqa: BLE001 - the edge of the process: whatever it is, the client gets an answer
            _log.exception("a request to %s failed", self.to.deployment, extra={"trace_id": self.trace_id})
            self.fail(BemaError())

    async def _reached(self, fresh: bool) -> Upstream | InstanceRoute:
        """A connection to an instance, or the route to one that a door answers for. Waits for a start if need be."""
        dispatcher = self._dispatcher
        # only a failed dial is tried again: nothing was sent then, so the request cannot run twice
        for _ in range(2):
            place = self._place
            if place is None or not place.open:
                self._give_up()
                place = await self._given()
                self._held(place)
            if (reached := await dispatcher.connect(place, fresh=fresh)) is not None:
                return reached
            self._give_up()
        raise unreached()

    async def _given(self) -> Seat:
        """The place that this exchange waits for: at an instance that is busy, or that is yet to start."""
        dispatcher, began = self._dispatcher, time.perf_counter()
        self._woke = dispatcher.table.route(self.to.deployment) is None
        try:
            place = await dispatcher.admission.wait(self.to.deployment, self.head)
        except (BemaError, asyncio.CancelledError) as error:
            if self._woke:
                dispatcher.starts.refused(error)
            raise
        if self._woke:
            dispatcher.starts.waited(place.instance, time.perf_counter() - began)
        return place

    def _held(self, place: Seat) -> None:
        """A place is this exchange's, and was counted in for it."""
        self._place = place
        if self._activity is None:
            self._activity = self._dispatcher.activities.of(self.to.deployment)
            self._activity.begin()
        seconds = place.instance.terms.timeout
        if seconds and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._late, seconds)

    def _late(self, seconds: float) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.fail(BemaError(f"the request took longer than {seconds:g} s", code="deadline_exceeded"))

    def _give_up(self) -> None:
        if (place := self._place) is not None:
            self._place = None
            self._dispatcher.admission.release(place)

    def _attach(self, upstream: Upstream) -> None:
        self._task = None
        self.upstream = upstream
        raw = request_head(self.head, self.to, self.client.peer, self._dispatcher.authority, self.trace)
        # A new connection that ends has read the request, or died of it: never again.
        self._repeatable = upstream.reused and self._may_repeat()
        if self._pending:
            payload = b"".join(self._pending)
            if not self._repeatable:
                self._pending = []
            raw += self._framed(payload, self.complete)
            self.client.hold(FULL_PENDING, False)
        # The client may have stopped reading while we waited for the connection.
        if self.client.full:
            upstream.pause(True)
        upstream.begin(self, raw)

    def _framed(self, payload: bytes, done: bool) -> bytes:
        if not self.head.chunked:
            return payload
        return chunk(payload) + b"0\r\n\r\n" if done else chunk(payload)

    # called from the instance's side

    def interim(self, head: ResponseHead) -> None:
        # RFC 9110 15.2: a client of HTTP/1.0 knows no interim answers
        if not self.head.http10:
            lines = b"".join(b"%b: %b\r\n" % header for header in head.headers)
            self.client.write(status_line(head) + lines + b"\r\n")

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        if self.head.upgrade is None:
            raise BemaError("the instance switched protocols unasked", code="bad_upstream")
        self.answered = self.tunnel = True
        # what goes on for as long as both like is no request any more
        self._in_time()
        self._count(head.status)
        framing = b"upgrade: %b\r\nconnection: upgrade\r\n" % head.ours.get(b"upgrade", self.head.upgrade)
        # Head and first bytes in one write, and only then what the client sent early: a peer that
        # closes at once still gets its answer out before it.
        self.client.write(self._shown(head, framing) + rest)
        self.client.switched()

    def answer(self, head: ResponseHead, body: Body | None, payload: bytes) -> None:
        self.answered = True
        self._pending = []
        self._count(head.status)
        # Decided when the head is written, since the head says it; a body that ends later changes
        # nothing.
        self.keeps()
        framing = self._framing(head, body)
        if not self.keep:
            framing += b"connection: close\r\n"
        raw = self._shown(head, framing)
        if body is not None:
            raw += self._passed(payload, body)
        self.client.write(raw)

    def more(self, payload: bytes, body: Body) -> None:
        if passed := self._passed(payload, body):
            self.client.write(passed)

    def tunnelled(self, data: bytes) -> None:
        self.client.write(data)

    def ended(self) -> None:
        """The answer is complete, by its framing or by the end of the instance's connection."""
        self.upstream = None
        if self._encode:
            # The instance delimited its answer by closing; the client's connection goes on, so it
            # gets an end.
            self.client.write(b"0\r\n\r\n")
        self._leave()
        self.client.done(self.keep)

    def broken(self, error: BemaError) -> None:
        address = self.upstream.address if self.upstream is not None else ""
        self.upstream = None
        if self._activity is not None:
            self._activity.upstream_failures += 1
        if error.code == "bad_upstream":
            _log.warning(
                "an answer of %s, instance %s, was refused: %s",
                self.to.deployment,
                self._dispatcher.instance_at(self.to.deployment, address),
                error.message,
                extra={"trace_id": self.trace_id},
            )
        self.fail(error)

    def repeat(self) -> bool:
        """Send the request again, once, on a new connection: the one in use was closed before the instance read it."""
        if not self._repeatable:
            return False
        self._repeatable = False
        self.upstream = None
        self._task = asyncio.get_running_loop().create_task(self._reach(fresh=True))
        return True

    def upstream_full(self, full: bool) -> None:
        self.client.hold(FULL_UPSTREAM, full)

    def fail(self, error: BemaError) -> None:
        """Answer with an error; an answer that has begun is cut short, so that the client sees that it is not whole."""
        if self.upstream is not None:
            self.upstream.let_go()
            self.upstream = None
        if self.answered:
            self._leave()
            self.client.cut()
            return
        close, head = not self.keeps(), self.method == b"HEAD"
        raw = error_answer(error, self.trace_id, close=close, head=head, more=self.timing)
        self.begin_answer(raw, error.problem.http)
        self.finish()

    def keeps(self) -> bool:
        """Whether the client's connection goes on after the answer that is about to be written."""
        self.keep = self.complete and not self.head.closes and not self._dispatcher.draining
        return self.keep

    def begin_answer(self, raw: bytes, status: int) -> None:
        """Write the start of the gateway's own answer."""
        self.answered = True
        self._count(status)
        self.client.write(raw)

    def finish(self) -> None:
        """End the exchange after the gateway's own answer."""
        self._leave()
        self.client.done(self.keep)

    async def room(self) -> None:
        """Wait while the client does not read what was written."""
        while self.client.full:
            await self._wake()

    async def whole_body(self) -> bytes:
        """The whole body of the request, at most `http_body` bytes, which the connection sees to."""
        self.client.hold(FULL_PENDING, False)
        while not self.complete:
            await self._wake()
        return b"".join(self._pending)

    async def _wake(self) -> None:
        self._woken = asyncio.Event()
        await self._woken.wait()

    def _framing(self, head: ResponseHead, body: Body | None) -> bytes:
        if body is None or isinstance(body, SizedBody):
            # RFC 9110 8.6: an answer of status 204 has no content-length
            if head.length is None or head.status == 204:
                return b""
            return b"content-length: %d\r\n" % head.length
        if self.head.http10:
            self.keep = False
            return b""
        self._encode = True
        return b"transfer-encoding: chunked\r\n"

    def _passed(self, payload: bytes, body: Body) -> bytes:
        if not self._encode:
            return payload
        if not body.done:
            return chunk(payload)
        self._encode = False
        # RFC 9110 6.5.1: trailers may be dropped unless the client said that it takes them
        wanted = isinstance(body, Chunked) and b"trailers" in tokens(self.head.ours.get(b"te", b""))
        return b"%b0\r\n%b\r\n" % (chunk(payload), body.trailers if wanted else b"")

    def _shown(self, head: ResponseHead, framing: bytes) -> bytes:
        for header in self.timing:
            framing += b"%b: %b\r\n" % header
        return response_head(head, self.head, self.to, self._dispatcher.authority, framing, self.trace_id.encode())

    def _count(self, status: int) -> None:
        if self._activity is not None:
            self._activity.answered(status, time.perf_counter() - self._started)

    def _in_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _leave(self) -> None:
        self._in_time()
        # once per exchange, however it ends: a deployment whose count of requests in flight leaks never becomes idle
        if self._activity is not None:
            self._activity.end()
            self._activity = None
        self._give_up()


Door = Callable[[Exchange, InstanceRoute], Awaitable[None]]
"""Answers a request to an instance that does not speak HTTP itself, such as a `@service`."""

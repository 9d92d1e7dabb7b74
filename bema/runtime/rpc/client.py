"""Client: calls to one endpoint, on whichever instance is picked.

Laws: a resumable stream goes on behind its last item when its instance ends, and a durable call under its id. Any other call is
repeated only if it was never written, was refused before it ran, or its endpoint is declared idempotent; and never beyond the
retry budget. A call that was sent and not answered raises `Disconnected`, since nobody knows whether it ran.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Generator
from time import monotonic, time_ns
from typing import Any

from bema.core.call import CURRENT, traceparent
from bema.core.durable import HEADER
from bema.core.errors import DeadlineExceeded, Disconnected, Invalid, Overloaded, StreamCut, Unavailable
from bema.core.instance import Instance
from bema.core.naming import new_call_id
from bema.core.spec import EndpointSpec
from bema.runtime.rpc.client_connection import Answered, ClientConnection, StreamLost
from bema.runtime.rpc.codec import CodecFactory, EndpointCodec
from bema.runtime.rpc.connection import NEVER
from bema.runtime.rpc.continuation import Continuation
from bema.runtime.rpc.offers import LaneChoice
from bema.runtime.rpc.picker import next_number
from bema.runtime.rpc.pool import ConnectionPool
from bema.runtime.rpc.resolver import Resolver, Viewing
from bema.runtime.rpc.retry_budget import RetryBudget
from bema.runtime.rpc.stream import OpenCall, Stream
from bema.wire.rpc import failures, frames
from bema.wire.values import codecs

TAKEN_OVER = 30.0  # seconds that a durable call waits for the next owner of its record
ATTEMPTS = 5  # of one call, the first among them


class Client:
    """Calls one endpoint of one component.

    `view` is the component's view, or opens it at the first call. `endpoint` gives the types; with None, arguments and answers
    are plain values. `skip` is the id of the caller's own instance, which is called
    only where it is the one left and `alone` allows it; `wait` the seconds that a call waits for an instance, `lanes` how
    the caller chooses among what is deployed and what is not.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        view: Viewing,
        route: str,
        endpoint: EndpointSpec | None = None,
        *,
        pick: str = "",
        skip: int | None = None,
        alone: bool = False,
        wait: float = 0.0,
        lanes: LaneChoice = LaneChoice(),  # noqa: B008 - a tuple
    ) -> None:
        self.route = route
        self.endpoint = endpoint
        self._resolver = Resolver(pool, view, route, pick=pick, skip=skip, alone=alone, wait=wait, lanes=lanes)
        self._usable = self._resolver.usable
        self._connected = self._resolver.connected
        self._most_headers = pool.limits.rpc_headers
        self._budget = RetryBudget()
        # a class says it for its clients; who calls by address asks the records, all of which must
        # agree
        self._idempotent = None if endpoint is None else endpoint.idempotent  # None: as the instances say
        facts = {} if endpoint is None else endpoint.facts
        made = EndpointCodec(route, CodecFactory.open(pool.settings))
        self._encode = made.of(made.codec.arguments_encoder, None if endpoint is None else endpoint.parameters)
        self._encode_request = made.of(made.codec.encoder, facts.get("requests", Any), "the stream that it takes")
        self._decode = made.of(made.codec.decoder, Any if endpoint is None else endpoint.returns, "what it returns")
        self._known = failures.declared(facts.get("raises", ()))

    def instances(self) -> tuple[Instance, ...]:
        """The instances that a call could go to now."""
        return self._resolver.instances()

    def counted(self) -> tuple[Instance, ...]:
        """The instances that `ready` counts."""
        return self._resolver.counted()

    async def ready(self, timeout: float | None = None, *, count: int = 1) -> Client:
        """Wait until at least `count` instances are there; `Unavailable` when `timeout` runs out first."""
        await self._resolver.ready(timeout, count=count)
        return self

    def __await__(self) -> Generator[Any, None, Client]:
        return self.ready().__await__()

    # calls

    def encoded(self, arguments: dict[str, Any]) -> bytes:
        """Arguments as they travel; `Invalid` for what does not fit."""
        try:
            return self._encode(arguments)
        except (Invalid, *codecs.UNFIT) as error:
            raise codecs.refusal(error, f"the arguments of {self.route}", arguments) from error

    def decoded(self, payload: bytes) -> Any:
        """An answer as it came; `BadAnswer` for what does not fit."""
        try:
            return self._decode(payload)
        except codecs.UNFIT as error:
            raise codecs.bad_answer(error, f"the answer of {self.route}") from error

    def failed(self, payload: bytes) -> BaseException:
        """A failure as it was kept, as the exception that a caller gets of it."""
        return failures.rebuild(failures.read_failure(payload), self._known)

    async def unary(
        self,
        arguments: dict[str, Any],
        *,
        timeout: float | None = None,
        metadata: dict[str, str] | None = None,
        instance: int | None = None,
        requests: AsyncIterable[Any] | None = None,
    ) -> Any:
        """Call and return the one answer. `timeout` is in seconds; `requests` is the stream that the endpoint takes.

        Raises `Invalid` for arguments that do not fit, `Unavailable`, `DeadlineExceeded`, `Disconnected` or `BadAnswer`,
        and what the service raised.
        """
        try:
            payload = self._encode(arguments)
        except (Invalid, *codecs.UNFIT) as error:
            raise codecs.refusal(error, f"the arguments of {self.route}", arguments) from error
        deadline, remaining, headers, metadata = self._inherit(timeout, metadata)
        kind = frames.UNARY if requests is None else frames.COLLECT
        self._budget.calls += 1
        number = next_number()
        attempt = 0
        while True:
            conn = self._usable(instance, number, metadata)
            if conn is None:
                connected = self._connected if HEADER not in (metadata or ()) else self._next_owner
                conn = await connected(instance, deadline, number, metadata)
                # the search took some of it, and the peer counts from when it reads
                remaining = _until(deadline)
            if self._resolver.durable and HEADER not in (metadata or ()):
                # an id of the caller's own: sent again with it, it is the same call
                metadata = {**(metadata or {}), HEADER: new_call_id(time_ns() // 1000)}
                headers = frames.pack_metadata(metadata, self._most_headers)
            ident, future = conn.ask(kind, self.route, payload, deadline, remaining, headers)
            if requests is not None:
                conn.send_input(ident, requests, self._encode_request)
            try:
                answer = await future
                break
            except asyncio.CancelledError:
                conn.cancel(ident)
                raise
            except (Answered, Unavailable, Disconnected) as error:
                del future  # it holds the error, which holds this frame: a cycle would wait for the collector
                attempt += 1
                # written down under its id, it is not made twice; its record may be empty of instances just now
                kept = HEADER in (metadata or ()) and attempt < ATTEMPTS and _is_unknown(error)
                if requests is not None or not (kept or self._again(error, attempt)):
                    raise self._raised(error) from None
                remaining = _until(deadline)
        try:
            return self._decode(answer)
        except codecs.UNFIT as error:
            raise codecs.bad_answer(error, f"the answer of {self.route}") from error

    async def _next_owner(
        self, instance: int | None, deadline: float, number: int, metadata: dict[str, str] | None
    ) -> ClientConnection:
        """Who has the durable calls now that their owner was lost: another process, or the same one started again."""
        until = min(deadline, monotonic() + TAKEN_OVER)
        while True:
            try:
                return await self._connected(instance, deadline, number, metadata)
            except Unavailable:
                if monotonic() >= until:
                    raise
            await asyncio.sleep(0.1)

    def stream(
        self,
        arguments: dict[str, Any],
        *,
        timeout: float | None = None,
        metadata: dict[str, str] | None = None,
        instance: int | None = None,
        requests: AsyncIterable[Any] | None = None,
        opened: OpenCall | None = None,
    ) -> Stream:
        """A stream of answers, sent when the first one is asked for. It raises what `unary` raises, and `StreamCut`.

        `opened` receives the connection, so that the call can be stopped from outside.
        """
        opened = OpenCall() if opened is None else opened
        return Stream(self._items(opened, arguments, timeout, metadata, instance, requests), opened)

    async def _items(
        self,
        opened: OpenCall,
        arguments: dict[str, Any],
        timeout: float | None,
        metadata: dict[str, str] | None,
        instance: int | None,
        requests: AsyncIterable[Any] | None,
    ) -> AsyncGenerator[Any, None]:
        try:
            payload = self._encode(arguments)
        except (Invalid, *codecs.UNFIT) as error:
            raise codecs.refusal(error, f"the arguments of {self.route}", arguments) from error
        deadline, remaining, headers, metadata = self._inherit(timeout, metadata)
        kind = frames.STREAM if requests is None else frames.BOTH
        decode = self._decode
        self._budget.calls += 1
        number = next_number()
        attempt = 0
        continued: Continuation | None = None
        while True:
            conn = self._usable(instance, number, metadata)
            if conn is None:
                conn = await self._connected(instance, deadline, number, metadata)
                remaining = _until(deadline)
            if instance is None and (continued is not None or self._resolver.resumable):
                continued = self._continuation(continued)
                headers = self._headers(metadata, continued)
            ident, inflow = conn.open(kind, self.route, payload, deadline, remaining, headers)
            opened.conn, opened.ident = conn, ident
            if requests is not None:
                conn.send_input(ident, requests, self._encode_request)
            try:
                # as `Inflow.items` does: a generator inside a generator would cost each item a step more
                while True:
                    payloads = inflow.poll()
                    if payloads is None:
                        await inflow.arrival()
                        continue
                    if not payloads:
                        return
                    if continued is None:
                        for item in payloads:
                            yield decode(item)
                    else:
                        for item in payloads:
                            yield decode(continued.take(item))
            except codecs.UNFIT as error:
                raise codecs.bad_answer(error, f"an item of {self.route}") from error
            except (Answered, Unavailable, Disconnected, StreamLost) as error:
                attempt = attempt + 1 if continued is None or not continued.moved() else 1
                began = inflow.began and continued is None
                if began or requests is not None or not self._again(error, attempt, continued, opened):
                    raise self._raised(error) from None
                remaining = _until(deadline)
            finally:
                conn.cancel(ident)
                inflow.close()

    def _continuation(self, known: Continuation | None) -> Continuation | None:
        """Of a stream that is opened, or opened again: None where an instance could not continue it."""
        return (known or Continuation()) if self._resolver.resumable else known

    def _headers(self, metadata: dict[str, str] | None, continued: Continuation | None) -> bytes:
        return frames.pack_metadata(metadata if continued is None else continued.metadata(metadata), self._most_headers)

    def _inherit(
        self, timeout: float | None, metadata: dict[str, str] | None
    ) -> tuple[float, float | None, bytes, dict[str, str] | None]:
        """A call's deadline, the seconds until then, its packed headers and its metadata.

        A call that is made while another is answered inherits the other's metadata, and cannot outlast its deadline.
        """
        # not the loop's clock: asking for the running loop costs a system call
        deadline = NEVER if timeout is None else monotonic() + timeout
        parent = CURRENT.get()
        if parent is not None:
            # the first hop that was given no trace begins one, and all that it calls are a part of
            # it
            if "traceparent" not in parent.metadata:
                parent.metadata["traceparent"] = traceparent()
            metadata = parent.metadata if metadata is None else {**parent.metadata, **metadata}
            if parent.deadline is not None and parent.deadline < deadline and not parent.ended:
                deadline = parent.deadline
                timeout = deadline - monotonic()
        if timeout is not None and timeout <= 0:
            raise DeadlineExceeded(f"the time for {self.route} had run out before it was called")
        return deadline, timeout, frames.pack_metadata(metadata, self._most_headers), metadata

    def _again(
        self,
        error: BaseException,
        attempt: int,
        continued: Continuation | None = None,
        opened: OpenCall | None = None,
    ) -> bool:
        """Whether a failed call may be sent once more: the law at the top of this module."""
        if continued is not None and opened is not None and _goes_on(error) and not opened.asked_to_end:
            return continued.pays() or (attempt < ATTEMPTS and self._budget.take())
        safe = isinstance(error, Unavailable) or (isinstance(error, Answered) and error.failure.refused)
        if isinstance(error, Answered) and error.failure.code in ("not_found", "too_large"):
            return False
        if not safe and not (_is_unknown(error) and self._may_run_twice()):
            return False
        # a busy instance stays busy: only another one is worth asking
        if isinstance(error, Answered) and error.failure.code == "overloaded" and attempt >= len(self.instances()):
            return False
        return attempt < ATTEMPTS and self._budget.take()

    def _may_run_twice(self) -> bool:
        return self._resolver.idempotent() if self._idempotent is None else self._idempotent

    def _raised(self, error: BaseException) -> BaseException:
        if isinstance(error, StreamLost):
            return StreamCut(error.message)  # nobody went on with it: all that its reader needs to know
        if not isinstance(error, Answered):
            return error
        raised = failures.rebuild(error.failure, self._known)
        # the code says that nothing ran; here the handler ran, and met it
        if isinstance(raised, Unavailable | Overloaded) and not error.failure.refused:
            raised.fix = f"{self.route} itself ran and met this: repeat it only if it may run twice."
        return raised


def _goes_on(error: BaseException) -> bool:
    """Whether the instance ended and not the stream: its connection was lost, or it hands its streams over."""
    return (
        isinstance(error, StreamLost)
        or _is_unknown(error)
        or (isinstance(error, Answered) and error.failure.code == "handed_over")
    )


def _is_unknown(error: BaseException) -> bool:
    """Whether nobody knows how far the call came: its connection was lost, or its process ended around it."""
    if not isinstance(error, Answered):
        return isinstance(error, Disconnected)
    failure = error.failure
    return failure.code == Disconnected.code or (
        failure.code == StreamCut.code and bool(failure.attributes.get("instance_stopped"))
    )


def _until(deadline: float) -> float | None:
    """The seconds that are left, None where there is no deadline."""
    return None if deadline == NEVER else deadline - monotonic()

"""Client: calls to one endpoint, wherever its instances are.

Law: a call is sent again only if it was never written, was refused before it ran, or its endpoint is declared
idempotent; and never beyond the retry budget. What was sent and not answered is `Disconnected`: whether it ran is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator
from time import monotonic
from typing import Any

from bema.core.call import CURRENT, traceparent
from bema.core.errors import BemaError, DeadlineExceeded, Disconnected, Invalid, Unavailable
from bema.core.instance import Instance
from bema.core.spec import EndpointSpec
from bema.runtime.calling import Answered, CallingConnection
from bema.runtime.connection import NEVER
from bema.runtime.discovery import View, wait_for
from bema.runtime.pick import picker
from bema.runtime.pool import Pool
from bema.runtime.stream import Stream
from bema.wire import codecs, failures, frames

ATTEMPTS = 5


class Budget:
    """Retries may be a fifth of the calls, and a burst of 256; beyond that a failure is passed on."""

    def __init__(self) -> None:
        self.calls = 0
        self._left = 256.0
        self._counted = 0

    def take(self) -> bool:
        self._left = min(256.0, self._left + (self.calls - self._counted) * 0.2)
        self._counted = self.calls
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Client:
    """Calls one endpoint of one component.

    `view` is the component's view, or what opens it; `endpoint` gives types, None means untyped dictionaries; `skip` is the
    id of the caller's own instance; `wait` is how long a call waits for an instance to appear.
    """

    def __init__(
        self,
        pool: Pool,
        view: View | Callable[[], Awaitable[View]],
        route: str,
        endpoint: EndpointSpec | None = None,
        *,
        pick: str = "round_robin",
        skip: int | None = None,
        wait: float = 0.0,
    ) -> None:
        self.route = route
        self.endpoint = endpoint
        self._pool = pool
        self._view = None if callable(view) else view
        self._open_view = view if callable(view) else None
        self._name = route.rpartition(".")[2]
        self._pick = picker(pick)
        self._skip = skip
        self._wait = wait
        self._picture: tuple[Instance, ...] | None = None
        self._candidates: tuple[Instance, ...] = ()
        self._chosen: Instance | None = None  # by the last `_usable`
        self._budget = Budget()
        self._idempotent = endpoint is not None and endpoint.idempotent
        facts = {} if endpoint is None else endpoint.facts
        self._encode = codecs.arguments_encoder(None if endpoint is None else endpoint.parameters)
        self._encode_request = codecs.encoder(facts.get("requests", Any))
        self._decode = codecs.decoder(Any if endpoint is None else endpoint.returns)
        self._known = failures.declared(facts.get("raises", ()))

    # instances

    def instances(self) -> tuple[Instance, ...]:
        """The instances that a call could go to now."""
        if self._view is None:
            return ()
        picture = self._view.instances()
        if picture is not self._picture:
            self._picture = picture
            self._candidates = tuple(i for i in picture if self._fits(i))
        return self._candidates

    def _fits(self, instance: Instance) -> bool:
        return (
            instance.routable()
            and instance.id != self._skip
            and "rpc" in instance.addresses
            and any(info.name == self._name for info in instance.endpoints)
        )

    async def ready(self, timeout: float | None = None, *, count: int = 1) -> Client:
        """Wait until at least `count` instances are there; `Unavailable` when `timeout` runs out first."""
        view = await self._viewed()
        try:
            async with asyncio.timeout(timeout):
                await wait_for(view, lambda picture: len(self.instances()) >= count)
        except TimeoutError as error:
            raise Unavailable(f"no instance of {self.route} appeared within {timeout:g} s") from error
        return self

    def __await__(self) -> Generator[Any, None, Client]:
        return self.ready().__await__()

    async def _viewed(self) -> View:
        if self._view is None:
            assert self._open_view is not None
            self._view = await self._open_view()
        return self._view

    # calls

    async def unary(
        self,
        arguments: dict[str, Any],
        *,
        timeout: float | None = None,
        metadata: dict[str, str] | None = None,
        instance: int | None = None,
        requests: AsyncIterable[Any] | None = None,
    ) -> Any:
        """One answer. `requests` is the input of an endpoint that takes a stream."""
        payload = self._packed(arguments)
        deadline, headers = self._inherit(timeout, metadata)
        kind = frames.UNARY if requests is None else frames.COLLECT
        attempt = 0
        while True:
            conn = self._usable(instance) or await self._connected(instance, deadline)
            ident, future = conn.ask(kind, self.route, payload, deadline, headers)
            if requests is not None:
                conn.send_input(ident, requests, self._encode_request)
            try:
                answer = await future
                break
            except asyncio.CancelledError:
                conn.cancel(ident)
                raise
            except (Answered, Unavailable, Disconnected) as error:
                attempt += 1
                if requests is not None or not self._again(error, attempt):
                    raise self._raised(error) from None
        try:
            return self._decode(answer)
        except codecs.UNFIT as error:
            raise codecs.refusal(error, f"the answer of {self.route}") from error

    def stream(
        self,
        arguments: dict[str, Any],
        *,
        timeout: float | None = None,
        metadata: dict[str, str] | None = None,
        instance: int | None = None,
        requests: AsyncIterable[Any] | None = None,
    ) -> Stream:
        """A stream of answers; nothing is sent before the first is asked for."""
        handle = Stream()
        handle.items = self._items(handle, arguments, timeout, metadata, instance, requests)
        return handle

    async def _items(
        self,
        handle: Stream,
        arguments: dict[str, Any],
        timeout: float | None,
        metadata: dict[str, str] | None,
        instance: int | None,
        requests: AsyncIterable[Any] | None,
    ) -> AsyncGenerator[Any, None]:
        payload = self._packed(arguments)
        deadline, headers = self._inherit(timeout, metadata)
        kind = frames.STREAM if requests is None else frames.BOTH
        decode = self._decode
        attempt = 0
        while True:
            conn = self._usable(instance) or await self._connected(instance, deadline)
            ident, inflow = conn.open(kind, self.route, payload, deadline, headers)
            handle.opened(conn, ident)
            if requests is not None:
                conn.send_input(ident, requests, self._encode_request)
            try:
                while payloads := await inflow.next():
                    for item in payloads:
                        yield decode(item)
                return
            except codecs.UNFIT as error:
                raise codecs.refusal(error, f"an item of {self.route}") from error
            except (Answered, Unavailable, Disconnected) as error:
                attempt += 1
                if inflow.began or requests is not None or not self._again(error, attempt):
                    raise self._raised(error) from None
            finally:
                conn.cancel(ident)
                inflow.close()

    def _packed(self, arguments: dict[str, Any]) -> bytes:
        try:
            return self._encode(arguments)
        except (Invalid, *codecs.UNFIT) as error:
            raise codecs.refusal(error, f"the arguments of {self.route}", arguments) from error

    def _inherit(self, timeout: float | None, metadata: dict[str, str] | None) -> tuple[float, bytes]:
        """The call's deadline and headers: its own, within those of the call that is being answered here."""
        # not the loop's clock: asking for the running loop costs a system call
        deadline = NEVER if timeout is None else monotonic() + timeout
        parent = CURRENT.get()
        if parent is not None:
            if "traceparent" not in parent.metadata:
                parent.metadata["traceparent"] = traceparent()
            metadata = parent.metadata if metadata is None else {**parent.metadata, **metadata}
            if parent.deadline is not None and parent.deadline < deadline:
                deadline = parent.deadline
                timeout = deadline - monotonic()
        if timeout is not None and timeout <= 0:
            raise DeadlineExceeded(f"the time for {self.route} had run out before it was called")
        return deadline, frames.pack_metadata(metadata)

    def _again(self, error: BaseException, attempt: int) -> bool:
        """Whether a failed call may be sent once more."""
        safe = isinstance(error, Unavailable) or (isinstance(error, Answered) and error.failure.refused)
        if isinstance(error, Answered) and error.failure.code == "not_found":
            return False
        if not safe and not (self._idempotent and isinstance(error, Disconnected)):
            return False
        return attempt < ATTEMPTS and self._budget.take()

    def _raised(self, error: BaseException) -> BaseException:
        return failures.rebuild(error.failure, self._known) if isinstance(error, Answered) else error

    # connections

    def _usable(self, wanted: int | None) -> CallingConnection | None:
        """The connection to use if it is open already: what every call but the first finds."""
        self._budget.calls += 1
        candidates = self.instances()
        if wanted is not None or not candidates:
            self._chosen = None
            conn = None if wanted is None else self._pool.connections.get(wanted)
        else:
            self._chosen = chosen = candidates[0] if len(candidates) == 1 else self._pick(candidates, self._pool.load)
            conn = self._pool.connections.get(chosen.id)
        return conn if conn is not None and conn.usable else None

    async def _connected(self, wanted: int | None, deadline: float) -> CallingConnection:
        """Find an instance and connect to it, within the call's time."""
        chosen = self._chosen
        try:
            async with asyncio.timeout_at(None if deadline == NEVER else deadline):
                await self._viewed()
                return await self._search(wanted, chosen)
        except TimeoutError as error:
            if isinstance(error, BemaError):
                raise
            raise DeadlineExceeded(f"no instance of {self.route} took the call in time") from error

    async def _search(self, wanted: int | None, chosen: Instance | None) -> CallingConnection:
        tried: set[int] = set()
        problem: BemaError | None = None
        while True:
            left = [i for i in self.instances() if i.id not in tried and wanted in (None, i.id)]
            speaking = [i for i in left if self._pool.quiet(i) is None]
            if speaking:
                instance = (
                    chosen if chosen is not None and chosen in speaking else self._pick(speaking, self._pool.load)
                )
                try:
                    return await self._pool.connect(instance)
                except BemaError as error:
                    problem = error
                    tried.add(instance.id)
            elif left:
                await self._heard(left)
            elif problem is not None:
                raise problem
            else:
                await self._appeared(wanted)

    async def _heard(self, silent: list[Instance]) -> None:
        """Every candidate was silent for a heartbeat: wait until one speaks, or is gone."""
        waiting = [conn.changed for i in silent if (conn := self._pool.quiet(i)) is not None]
        view = await self._viewed()
        turned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stop = view.subscribe(lambda: None if turned.done() else turned.set_result(None))
        try:
            await asyncio.wait([*waiting, turned], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop()

    async def _appeared(self, wanted: int | None) -> None:
        if self._wait <= 0:
            which = "" if wanted is None else f" of the id {wanted}"
            raise Unavailable(f"no instance of {self.route}{which} is there")
        await self.ready(self._wait)

"""`Client` and `UnaryClient` of `dynamo.runtime`: bema's client with that runtime's methods.

`stream = await client.generate(request)`, then `async for answer in stream: answer.data()`. The `await` may be left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any, Final

from bema.compat.dynamo.context import Annotated, Cancelled, Context
from bema.compat.dynamo.failures import as_there
from bema.compat.dynamo.instances import Instance
from bema.compat.dynamo.migration import Migration, MigrationLimits, worker_ended
from bema.compat.dynamo.refused import NotSo, refuse
from bema.core import instance
from bema.core.errors import BemaError, StreamCut, Unavailable
from bema.runtime.discovery.discovery import wait_for
from bema.runtime.handles import CallHandle, EndpointClient
from bema.runtime.tasks import Tasks

PATIENCE: Final = 2.0
"""Seconds that a handler has to end a stream that was stopped and left."""


class RouterMode(enum.StrEnum):
    RoundRobin = "round_robin"
    Random = "random"
    PowerOfTwoChoices = "power_of_two"
    LeastLoaded = "least_loaded"
    Direct = "direct"
    DeviceAwareWeighted = "device_aware_weighted"
    KV = "kv"


def pick_of(mode: RouterMode | str | None) -> str:
    """Our name for it; `NotSo` for what looks at tokens or devices."""
    if mode in (RouterMode.KV, RouterMode.DeviceAwareWeighted):
        raise NotSo(
            f"router_mode {mode!s} looks at tokens or devices, which a runtime for any service does not know",
            fix="Use RouterMode.LeastLoaded, or a picker of your own that reads the data instances publish.",
        )
    return "" if mode is None else str(mode)


class Replies:
    """The answers to one request. Awaiting it finds an instance and gives it back; it sends when it is iterated."""

    def __init__(
        self, client: EndpointClient, request: Any, annotated: bool, context: Context | None, limits: MigrationLimits
    ) -> None:
        self._client = client
        self._request = request
        self._limits = limits
        self._annotated = annotated
        self._context = context
        self._items: AsyncGenerator[Any, None] | None = None

    def __await__(self) -> Generator[Any, None, Replies]:
        _refuse_if_stopped(self._context, self._client)
        try:
            # their `await` fails where no instance is there, and sends nothing yet
            yield from self._client.told().__await__()
        except BemaError as error:
            as_there(error)
            raise
        return self

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._items is None:
            # it must not know these replies, which hold it: they would wait for the collector when a loop is left
            migration = Migration(self._request, self._limits)
            self._items = _replies(self._client, self._request, migration, self._annotated, self._context)
        return self._items

    async def __anext__(self) -> Any:
        return await anext(self.__aiter__())

    async def aclose(self) -> None:
        """Give the request up, unless it has ended."""
        if self._items is not None:
            await self._items.aclose()


def _refuse_if_stopped(context: Context | None, client: EndpointClient) -> None:
    if context is not None and context.is_stopped():
        raise as_there(Cancelled(f"the context was stopped before {client.address} was called"))


async def _replies(
    client: EndpointClient, request: Any, migration: Migration, annotated: bool, context: Context | None
) -> AsyncGenerator[Any, None]:
    _refuse_if_stopped(context, client)
    left = False
    answer = client(request)
    unlink = None if context is None else context.link(lambda killed: answer.kill() if killed else answer.stop())
    try:
        while True:
            try:
                async for item in answer:
                    migration.take(item)
                    yield Annotated.of(item) if annotated else item
                return
            except BemaError as error:
                if migration.whole and worker_ended(error):
                    return
                again = None if context is not None and context.is_stopped() else migration.again(error)
                if again is None:
                    raise
            answer = client(again)  # what is linked to the context stops this one from here on
    except BemaError as error:
        if isinstance(error, StreamCut) and context is not None and context.is_stopped():
            return  # whoever stopped it knows that it is not all
        if error.code == Cancelled.code:
            raise as_there(Cancelled(error.message)) from error
        as_there(error)
        raise
    except GeneratorExit:
        if context is not None and unlink is not None and context.is_stopped() and not context.is_killed():
            # in the scope of the runtime: this generator is being closed, and nothing after the
            # wait would run here
            leaving: Tasks = vars(client.runtime)["leaving"]
            with contextlib.suppress(RuntimeError):  # the runtime has ended
                leaving.start(_left_to_end(answer, unlink), f"the end of a stream of {client.address}")
                left = True
        raise
    finally:
        if not left:
            if unlink is not None:
                unlink()
            await answer.aclose()


async def _left_to_end(answer: CallHandle, unlink: Callable[[], None]) -> None:
    """Who stopped a stream and left it asked its handler to end, which is not to be cut while it does."""
    try:
        async with asyncio.timeout(PATIENCE):
            async for _ in answer:
                pass
    except (BemaError, TimeoutError):
        pass  # nobody reads it any more
    finally:
        unlink()
        await answer.aclose()


class NotInTime(Unavailable, TimeoutError):
    """The instances that were waited for did not come."""


class Client:
    """Calls one endpoint. It may be awaited, which waits for nothing but the list of instances."""

    def __init__(self, client: EndpointClient, limits: MigrationLimits = MigrationLimits()) -> None:  # noqa: B008 - a tuple
        self._client = client
        self._limits = limits

    def __await__(self) -> Generator[Any, None, Client]:
        yield from self._client.wait_for_instances(0).__await__()
        return self

    def _ask(self, client: EndpointClient, request: Any, annotated: bool, context: Context | None) -> Replies:
        if context is not None:
            client = client.using(metadata=context.travels())
        # who names a worker means that one
        limits = self._limits if client.options.instance is None else MigrationLimits()
        return Replies(client, request, annotated, context, limits)

    def generate(self, request: Any, annotated: bool = True, context: Context | None = None) -> Replies:
        return self._ask(self._client, request, annotated, context)

    def round_robin(self, request: Any, annotated: bool = True, context: Context | None = None) -> Replies:
        return self._ask(self._client.picking("round_robin"), request, annotated, context)

    def random(self, request: Any, annotated: bool = True, context: Context | None = None) -> Replies:
        return self._ask(self._client.picking("random"), request, annotated, context)

    def power_of_two(self, request: Any, annotated: bool = True, context: Context | None = None) -> Replies:
        return self._ask(self._client.picking("power_of_two"), request, annotated, context)

    def least_loaded(self, request: Any, annotated: bool = True, context: Context | None = None) -> Replies:
        return self._ask(self._client.picking("least_loaded"), request, annotated, context)

    def direct(self, request: Any, instance_id: int, annotated: bool = True, context: Context | None = None) -> Replies:
        return self._ask(self._client.using(instance=instance_id), request, annotated, context)

    def instance_ids(self) -> list[int]:
        return self._client.instance_ids()

    def instances(self) -> list[Instance]:
        return [Instance.of(found, self._client.address.endpoint) for found in self._client.instances()]

    def instance_tcp_addresses(self) -> dict[int, str]:
        """Where the instances are reached from other machines, of those that are."""
        found = {each.id: [way.address for way in each.transports() if way.kind == "tcp"] for each in self.instances()}
        return {ident: addresses[0] for ident, addresses in found.items() if addresses}

    async def wait_for_instances(self) -> list[int]:
        return await self._client.wait_for_instances()

    async def wait_for_instances_by_runtime_data(
        self, key: str, value: Any, min_count: int = 1, timeout_s: float | None = None
    ) -> list[int]:
        """Wait for instances that published `key` as `value`; see `Endpoint.publish`. `NotInTime` when time runs out."""
        return await self._fitting({key: value}, lambda count: count >= min_count, f"{min_count} instances", timeout_s)

    async def wait_for_instance_by_runtime_data(self, key: str, value: Any, timeout_s: float | None = None) -> int:
        """Wait until exactly one instance has published `key` as `value`."""
        return (await self._fitting({key: value}, lambda count: count == 1, "one instance and no second", timeout_s))[0]

    async def _fitting(
        self, data: dict[str, Any], enough: Callable[[int], bool], wanted: str, timeout: float | None
    ) -> list[int]:
        client, found = self._client, list[int]()
        view = await client.runtime.view(client.address.namespace, client.address.component)
        await client.wait_for_instances(0)

        def fits(picture: tuple[instance.Instance, ...]) -> bool:
            found[:] = [each.id for each in client.instances() if data.items() <= each.data.items()]
            return enough(len(found))

        try:
            async with asyncio.timeout(timeout):
                await wait_for(view, fits)
        except TimeoutError as error:
            raise NotInTime(
                f"no {wanted} of {client.address} with {data} within {timeout} s (last_match_count={len(found)})"
            ) from error
        return found

    if not TYPE_CHECKING:  # with it, a misspelt name would be Any to type checkers

        def __getattr__(self, name: str) -> Any:
            return refuse("Client", name)


class UnaryClient:
    """For endpoints of exactly one reply."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def complete(self, request: Any, context: Context | None = None) -> Any:
        replies = [reply async for reply in self._client.generate(request, annotated=False, context=context)]
        if len(replies) != 1:
            raise RuntimeError(f"one reply was asked for, and {len(replies)} came")
        return replies[0]

"""What a caller holds: the client of one endpoint, the typed handle of a service, and the handle of a call.

Law: calling gives a `CallHandle` and sends nothing; what is then done with it decides how it is asked for. Awaited, it is
one value; iterated with `async for`, a stream; iterated with `for`, the same stream by way of another thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine, Generator, Iterator, Mapping
from typing import Any, Protocol, Self, TypedDict, Unpack

import msgspec

from bema.core.errors import BadDeclaration, Invalid, NotFound, Unavailable
from bema.core.instance import EndpointInfo, Instance
from bema.core.naming import Address, nearest
from bema.core.spec import EndpointSpec, ServiceSpec
from bema.runtime.bridge import Bridge, in_a_loop
from bema.runtime.discovery.discovery import View, wait_for
from bema.runtime.rpc.client import Client
from bema.runtime.rpc.pool import ConnectionPool
from bema.runtime.rpc.stream import OpenCall


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How calls are made. `instance` names the one to call, `wait` is how long to wait for one to appear.

    `pick` is the name of a picker; without one, the picker in use.
    """

    timeout: float | None = None
    metadata: Mapping[str, str] | None = None
    instance: int | None = None
    pick: str = ""
    wait: float = 0.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Options by name; `BadDeclaration` names one that there is not."""
        for name in given:
            if name not in cls.__struct_fields__:
                raise BadDeclaration(
                    f"a client has no option {name!r}{nearest(name, cls.__struct_fields__)}",
                    fix=f"The options are {', '.join(cls.__struct_fields__)}.",
                )
        return cls(**given)


class GivenOptions(TypedDict, total=False):
    """`Options` as keywords, for type checkers: seconds, the id of an instance, the name of a picker."""

    timeout: float | None
    metadata: Mapping[str, str] | None
    instance: int | None
    pick: str
    wait: float


class CallingRuntime(Protocol):
    """What a client needs of the runtime it belongs to."""

    @property
    def pool(self) -> ConnectionPool:
        """The connections of its event loop."""

    async def view(self, namespace: str, component: str) -> View:
        """The instances of a component, kept current."""

    def bridge(self) -> Bridge[CallingRuntime]:
        """The same once more, for code that cannot await; `Refused` where its discovery has but one loop."""

    async def close(self) -> None:
        """Release what is held."""


class CallHandle(Coroutine[Any, Any, Any]):
    """What a call gives: await it for one value, iterate it for a stream. It is asked for once.

    It is what the signature promises: a coroutine to `create_task`, an async iterator to `anext` and `aclosing`.
    """

    __slots__ = ("_asked", "_client", "_given", "_opened", "_stream")

    def __init__(self, client: EndpointClient, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self._client = client
        self._given = (arguments, keywords)
        self._asked: Coroutine[Any, Any, Any] | None = None
        self._stream: AsyncGenerator[Any, None] | None = None
        self._opened = OpenCall()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine().__await__()

    def send(self, value: Any) -> Any:
        return self._coroutine().send(value)

    def throw(self, kind: Any, value: Any = None, trace: Any = None) -> Any:
        return self._coroutine().throw(kind if value is None else value)

    def close(self) -> None:
        if self._asked is not None:
            self._asked.close()

    def _coroutine(self) -> Coroutine[Any, Any, Any]:
        if self._asked is None:
            self._asked = self._client.ask(*self._given)
        return self._asked

    def __aiter__(self) -> AsyncGenerator[Any, None]:
        if self._stream is None:
            self._stream = self._client.follow(*self._given, self._opened)
        return self._stream

    def stop(self) -> None:
        """Ask the producer of a stream to end early; what it still sends can be read, then `StreamCut` tells of it."""
        self._opened.stop()

    def kill(self) -> None:
        """Give a stream up while somebody else reads it."""
        self._opened.kill()

    async def __anext__(self) -> Any:
        return await anext(self.__aiter__())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give the call up, unless it has ended."""
        await self.__aiter__().aclose()

    def __iter__(self) -> Iterator[Any]:
        return self._client.iterate(*self._given)

    def result(self) -> Any:
        """The one value, for code that does not run in an event loop."""
        return self._client.result(*self._given)


class EndpointClient:
    """Calls one endpoint, wherever its instances are.

    It is called itself, or by its endpoint's name: `client(request)` and `client.generate(request)` are the same.
    Awaiting it waits until an instance is there.
    """

    def __init__(
        self,
        runtime: CallingRuntime,
        address: Address,
        spec: EndpointSpec | None = None,
        options: Options = Options(),  # noqa: B008 - frozen
        skip: int | None = None,
        calls: Client | None = None,
    ) -> None:
        self.runtime = runtime
        self.address = address
        self.options = options
        self._spec = spec
        self._skip = skip
        self._names = None if spec is None else tuple(parameter.name for parameter in spec.parameters)
        self._by_pick: dict[str, EndpointClient] = {}
        self._calls = calls or Client(
            runtime.pool,
            lambda: runtime.view(address.namespace, address.component),
            address.route,
            spec,
            pick=options.pick,
            skip=skip,
            wait=options.wait,
        )

    def __call__(self, *arguments: Any, **keywords: Any) -> CallHandle:
        return CallHandle(self, arguments, keywords)

    def __getattr__(self, name: str) -> EndpointClient:
        if "address" in self.__dict__ and name == self.address.endpoint:
            return self
        raise AttributeError(f"the client of {self.address} answers to {self.address.endpoint!r}, not to {name!r}")

    def __await__(self) -> Generator[Any, None, EndpointClient]:
        yield from self._calls.ready().__await__()
        return self

    def __repr__(self) -> str:
        return f"<client of {self.address}>"

    def using(self, **options: Unpack[GivenOptions]) -> EndpointClient:
        """The same client with other options: timeout, metadata, instance, pick, wait.

        Of one way to choose and to wait there is one turn and one retry budget, however often the other options change.
        """
        changed = msgspec.structs.replace(self.options, **options)
        if (changed.pick, changed.wait) != (self.options.pick, self.options.wait):
            return self.again(self.runtime, changed)
        return EndpointClient(self.runtime, self.address, self._spec, changed, self._skip, self._calls)

    def again(self, runtime: CallingRuntime, options: Options) -> EndpointClient:
        return EndpointClient(runtime, self.address, self._spec, options, self._skip)

    def picking(self, pick: str) -> EndpointClient:
        """The same client with another way to choose, made once."""
        if pick not in self._by_pick:
            self._by_pick[pick] = self.using(pick=pick)
        return self._by_pick[pick]

    def round_robin(self, *arguments: Any, **keywords: Any) -> CallHandle:
        """A call to each instance in turn."""
        return self.picking("round_robin")(*arguments, **keywords)

    def random(self, *arguments: Any, **keywords: Any) -> CallHandle:
        """A call to an instance at random."""
        return self.picking("random")(*arguments, **keywords)

    def power_of_two(self, *arguments: Any, **keywords: Any) -> CallHandle:
        """A call to the less loaded of two at random."""
        return self.picking("power_of_two")(*arguments, **keywords)

    def least_loaded(self, *arguments: Any, **keywords: Any) -> CallHandle:
        """A call to the instance with the fewest calls of ours."""
        return self.picking("least_loaded")(*arguments, **keywords)

    def direct(self, instance: int, *arguments: Any, **keywords: Any) -> CallHandle:
        """A call to one instance by its id."""
        return self.using(instance=instance)(*arguments, **keywords)

    def instances(self) -> tuple[Instance, ...]:
        """The instances that a call could go to now."""
        return self._calls.instances()

    def instance_ids(self) -> list[int]:
        return [instance.id for instance in self.instances()]

    async def wait_for_instances(
        self, count: int = 1, timeout: float | None = None, *, data: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Wait until at least `count` instances are there, and what they published about themselves holds `data`.

        `Unavailable` when the time runs out first.
        """
        if data is None:
            await self._calls.ready(timeout, count=count)
            return self.instance_ids()
        view = await self.runtime.view(self.address.namespace, self.address.component)
        await self._calls.ready(timeout, count=0)  # it has its view now
        fitting: list[int] = []

        def fits(picture: tuple[Instance, ...]) -> bool:
            fitting[:] = [i.id for i in self.instances() if data.items() <= i.data.items()]
            return len(fitting) >= count

        try:
            async with asyncio.timeout(timeout):
                await wait_for(view, fits)
        except TimeoutError as error:
            raise Unavailable(
                f"no {count} instances of {self.address} with {dict(data)} within {timeout:g} s"
            ) from error
        return fitting

    async def ask(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """One answer."""
        bound, requests = await self._bind(arguments, keywords)
        options = self.options
        return await self._calls.unary(
            bound,
            timeout=options.timeout,
            metadata=None if options.metadata is None else dict(options.metadata),
            instance=options.instance,
            requests=requests,
        )

    async def follow(
        self, arguments: tuple[Any, ...], keywords: dict[str, Any], opened: OpenCall | None = None
    ) -> AsyncGenerator[Any, None]:
        """A stream of answers. `opened` is told where it is answered."""
        bound, requests = await self._bind(arguments, keywords)
        options = self.options
        stream = self._calls.stream(
            bound,
            timeout=options.timeout,
            metadata=None if options.metadata is None else dict(options.metadata),
            instance=options.instance,
            requests=requests,
            opened=opened,
        )
        async with stream:
            async for answer in stream:
                yield answer

    # the same for code that cannot await

    def result(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """One answer. `Invalid` where the caller's own loop would have to give it."""
        bridge = self.runtime.bridge()
        return bridge.ask(self._ask_there(bridge.runtime, in_a_loop(), arguments, keywords))

    def iterate(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Iterator[Any]:
        """A stream of answers; leaving it early gives the call up. `Invalid` as for `result`."""
        bridge = self.runtime.bridge()
        return bridge.iterate(self._follow_there(bridge.runtime, in_a_loop(), arguments, keywords))

    async def _ask_there(
        self, runtime: CallingRuntime, blocks: bool, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        return await (await self._twin(runtime, blocks)).ask(arguments, keywords)

    async def _follow_there(
        self, runtime: CallingRuntime, blocks: bool, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        return (await self._twin(runtime, blocks)).follow(arguments, keywords)

    async def _twin(self, runtime: CallingRuntime, blocks: bool) -> EndpointClient:
        """This client in another runtime, kept from calling the process whose loop is blocked meanwhile."""
        address = self.address
        view = await runtime.view(address.namespace, address.component)
        serving = [i for i in view.instances() if any(info.name == address.endpoint for info in i.endpoints)]
        if blocks and serving and all(instance.pid == os.getpid() for instance in serving):
            raise Invalid(
                f"a plain `for` over {address} would wait for its own process for ever; use `async for`, or `await`",
            )
        return self.again(runtime, self.options)

    async def _bind(
        self, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[dict[str, Any], AsyncIterable[Any] | None]:
        """Arguments by name, and the outgoing stream apart."""
        spec = self._spec
        requests = None
        if spec is None or spec.incoming is not None:
            arguments, keywords, requests = _take_stream(arguments, keywords)
        if not arguments:
            return keywords, requests
        names = self._names if self._names is not None else await self._told_names()
        if len(arguments) > len(names):
            raise Invalid(f"{self.address} takes {len(names)} arguments ({', '.join(names)}), not {len(arguments)}")
        bound = dict(zip(names, arguments, strict=False))
        if twice := bound.keys() & keywords.keys():
            raise Invalid(f"{self.address} was given {', '.join(sorted(twice))} twice")
        return {**bound, **keywords}, requests

    async def _told_names(self) -> tuple[str, ...]:
        """The parameter names as the instances tell them."""
        told = (await self.told()).parameters
        if told is None:
            raise Invalid(f"{self.address} does not tell its parameters: pass arguments by name")
        return told

    async def told(self) -> EndpointInfo:
        """What the instances say of this endpoint; `Unavailable` where none is there."""
        view = await self.runtime.view(self.address.namespace, self.address.component)
        if not self._calls.instances() and self.options.wait > 0:
            await self._calls.ready(self.options.wait)
        for instance in (*self._calls.instances(), *view.instances()):
            for info in instance.endpoints:
                if info.name == self.address.endpoint:
                    return info
        if others := sorted({info.name for instance in view.instances() for info in instance.endpoints}):
            where = f"{self.address.namespace}.{self.address.component}"
            raise NotFound(f"{where} has no endpoint {self.address.endpoint!r}; it has {', '.join(others)}")
        raise Unavailable(f"no instance of {self.address.route} is there")


class ServiceHandle:
    """A service as its callers see it: every endpoint is a client under its method's name."""

    def __init__(self, runtime: CallingRuntime, spec: ServiceSpec, options: Options, skip: int | None) -> None:
        self.__dict__["_about"] = (runtime, spec, options, skip)

    def __getattr__(self, name: str) -> EndpointClient:
        runtime, spec, options, skip = self.__dict__["_about"]
        for endpoint in spec.endpoints:
            if name == (endpoint.attribute or endpoint.name):
                address = Address(spec.namespace, spec.name, endpoint.name)
                client = EndpointClient(runtime, address, endpoint, options, skip)
                self.__dict__[name] = client
                return client
        raise AttributeError(f"{spec.address} has no endpoint {name!r}")

    def __dir__(self) -> list[str]:
        return [endpoint.attribute or endpoint.name for endpoint in self.__dict__["_about"][1].endpoints]

    def __repr__(self) -> str:
        return f"<handle of {self.__dict__['_about'][1].address}>"


def _take_stream(
    arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], AsyncIterable[Any] | None]:
    streams = [value for value in (*arguments, *keywords.values()) if hasattr(value, "__aiter__")]
    if not streams:
        return arguments, keywords, None
    if len(streams) > 1:
        raise Invalid("one stream can travel with a call, not two")
    left = {name: value for name, value in keywords.items() if value is not streams[0]}
    return tuple(value for value in arguments if value is not streams[0]), left, streams[0]

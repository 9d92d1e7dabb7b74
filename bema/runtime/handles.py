"""Handles for callers: `ServiceHandle` of a service, `EndpointClient` of an endpoint, `CallHandle` of one call.

Law: making a call gives a `CallHandle` and sends nothing. What the caller does with the handle sends it: `await` gives one
value, `async for` a stream, and a plain `for` the same stream through another thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine, Generator, Iterator, Mapping
from time import time_ns
from typing import Any, NamedTuple, Protocol, Self, TypedDict, Unpack

import msgspec

from bema.core import durable
from bema.core.errors import BadDeclaration, Invalid, NotFound, Unavailable
from bema.core.instance import EndpointInfo, Instance
from bema.core.naming import Address, nearest, new_call_id
from bema.core.spec import EndpointSpec, ServiceSpec, Shape
from bema.runtime.bridge import Bridge, in_a_loop
from bema.runtime.call_ref import PATIENCE, CallOwner, CallRef
from bema.runtime.discovery.discovery import View, wait_for
from bema.runtime.rpc.absence import absence
from bema.runtime.rpc.built_in import BuiltIn
from bema.runtime.rpc.client import Client
from bema.runtime.rpc.offers import LaneChoice
from bema.runtime.rpc.pool import ConnectionPool
from bema.runtime.rpc.stream import OpenCall


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a client calls.

    `timeout` is in seconds for a whole call, `wait` in seconds for an instance to appear. `metadata` travels with each
    call, `instance` is the id of the one to call, `pick` the name of a picker; without one, the picker in use. `lane` is
    whose instances are called: `dev`, `hand` or `deployment/NAME`.
    """

    timeout: float | None = None
    metadata: Mapping[str, str] | None = None
    instance: int | None = None
    pick: str = ""
    wait: float = 0.0
    lane: str = ""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Options from keywords.

        Raises:
            BadDeclaration: a keyword is no option; the message names it and the nearest one that there is.
        """
        for name in given:
            if name not in cls.__struct_fields__:
                raise BadDeclaration(
                    f"a client has no option {name!r}{nearest(name, cls.__struct_fields__)}",
                    fix=f"The options are {', '.join(cls.__struct_fields__)}.",
                )
        return cls(**given)


class GivenOptions(TypedDict, total=False):
    """`Options` as keywords, for type checkers: seconds, the id of an instance, the names of a picker and a lane."""

    timeout: float | None
    metadata: Mapping[str, str] | None
    instance: int | None
    pick: str
    wait: float
    lane: str


class OwnInstance(NamedTuple):
    """The instance that a client belongs to, of the component that it calls; `never` where it must not be called itself."""

    id: int
    never: bool = False


class CallingRuntime(Protocol):
    """What a client needs of the runtime it belongs to."""

    @property
    def pool(self) -> ConnectionPool:
        """The connections of its event loop."""

    async def view(self, namespace: str, component: str) -> View:
        """The instances of a component, kept current."""

    def lanes(self, asked: str = "") -> LaneChoice:
        """How its clients choose among lanes."""

    def bridge(self) -> Bridge[CallingRuntime]:
        """What runs calls in a thread, for code that cannot await; `Refused` where discovery serves one loop only."""

    async def close(self) -> None:
        """Release the connections and views."""


class CallHandle(Coroutine[Any, Any, Any]):
    """One call that was made and not sent yet: await it for one value, or iterate it for a stream of values.

    A handle sends one call, however often it is used. It can be given to `create_task` like a coroutine, and to `anext` and
    `aclosing` like an async iterator. All ways raise what `DistributedRuntime.client` names.
    """

    # `create_task` takes what `asyncio.iscoroutine` accepts, which is any `collections.abc.Coroutine`: hence the base
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
        """Ask the service to end its stream early. The reader gets what is still sent, then `StreamCut`."""
        self._opened.stop()

    def kill(self) -> None:
        """End a stream at once, from outside of its reader, who gets `BemaError` with the code `cancelled`."""
        self._opened.kill()

    async def __anext__(self) -> Any:
        return await anext(self.__aiter__())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel the stream, unless it has ended: the service's handler is cancelled too."""
        await self.__aiter__().aclose()

    def __iter__(self) -> Iterator[Any]:
        return self._client.iterate(*self._given)

    def result(self) -> Any:
        """The one value, for code that cannot await: it blocks this thread.

        `Invalid` where the thread runs an event loop that would have to answer the call itself; otherwise as `await`.
        """
        return self._client.result(*self._given)


class EndpointClient:
    """Calls one endpoint of a component, on whichever instance the picker chooses.

    `client(request)` and, for an endpoint `generate`, `client.generate(request)` are the same call. `await client` waits
    until an instance is there. Arguments are given by position or by name; `Invalid` names one that does not fit.
    """

    def __init__(
        self,
        runtime: CallingRuntime,
        address: Address,
        spec: EndpointSpec | None = None,
        options: Options = Options(),  # noqa: B008 - frozen
        skip: OwnInstance | None = None,
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
            skip=None if skip is None else skip.id,
            alone=skip is not None and not skip.never,
            wait=options.wait,
            lanes=runtime.lanes(options.lane),
        )

    def __call__(self, *arguments: Any, **keywords: Any) -> CallHandle:
        return CallHandle(self, arguments, keywords)

    def __getattr__(self, name: str) -> EndpointClient:
        # `copy` and `pickle` ask before `__init__` has run: without the first test they would recurse here
        if "address" in self.__dict__ and name == self.address.endpoint:
            return self
        raise AttributeError(f"the client of {self.address} answers to {self.address.endpoint!r}, not to {name!r}")

    def __await__(self) -> Generator[Any, None, EndpointClient]:
        yield from self._calls.ready().__await__()
        return self

    def __repr__(self) -> str:
        return f"<client of {self.address}>"

    def using(self, **options: Unpack[GivenOptions]) -> EndpointClient:
        """A client with some options changed: those of `DistributedRuntime.client`.

        Of one way to choose and to wait there is one turn and one retry budget, however often the other options change.
        """
        changed = msgspec.structs.replace(self.options, **options)
        if any(getattr(changed, name) != getattr(self.options, name) for name in ("pick", "wait", "lane")):
            # a picker remembers its turn and a wait is the resolver's: neither can be shared by two
            # ways
            return self.again(self.runtime, changed)
        return EndpointClient(self.runtime, self.address, self._spec, changed, self._skip, self._calls)

    def again(self, runtime: CallingRuntime, options: Options) -> EndpointClient:
        """A client of the same endpoint in another runtime."""
        return EndpointClient(runtime, self.address, self._spec, options, self._skip)

    def picking(self, pick: str) -> EndpointClient:
        """A client that chooses instances with the picker of that name. It is made once per name."""
        if pick not in self._by_pick:
            self._by_pick[pick] = self.using(pick=pick)
        return self._by_pick[pick]

    def round_robin(self, *arguments: Any, **keywords: Any) -> CallHandle:
        """Call the instances in turn."""
        return self.picking("round_robin")(*arguments, **keywords)

    def random(self, *arguments: Any, **keywords: Any) -> CallHandle:
        """Call an instance at random."""
        return self.picking("random")(*arguments, **keywords)

    def power_of_two(self, *arguments: Any, **keywords: Any) -> CallHandle:
        """Choose two instances at random and call the one with fewer unanswered calls of ours."""
        return self.picking("power_of_two")(*arguments, **keywords)

    def least_loaded(self, *arguments: Any, **keywords: Any) -> CallHandle:
        """Call the instance with the fewest unanswered calls of ours."""
        return self.picking("least_loaded")(*arguments, **keywords)

    def direct(self, instance: int, *arguments: Any, **keywords: Any) -> CallHandle:
        """Call one instance by its id; `Unavailable` where it is not there."""
        return self.using(instance=instance)(*arguments, **keywords)

    def instances(self) -> tuple[Instance, ...]:
        """The records of the instances that a call could go to now; empty before the client was first used or awaited."""
        return self._calls.instances()

    def instance_ids(self) -> list[int]:
        """The ids of `instances()`."""
        return [instance.id for instance in self.instances()]

    async def wait_for_instances(
        self, count: int = 1, timeout: float | None = None, *, data: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Wait until `count` instances are there, and return the ids of all that are.

        `timeout` is in seconds; None waits for ever. With `data`, only instances count whose published data has these
        names and values.

        Raises:
            Unavailable: fewer are there when the time runs out.
        """
        if data is None:
            await self._calls.ready(timeout, count=count)
            return [instance.id for instance in self._calls.counted()]
        view = await self.runtime.view(self.address.namespace, self.address.component)
        await self._calls.ready(timeout, count=0)  # it has its view now
        fitting: list[int] = []

        def fits(shown: tuple[Instance, ...]) -> bool:
            fitting[:] = [i.id for i in self._calls.counted() if data.items() <= i.data.items()]
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
        """Send the call and return its one answer. `Invalid` where the arguments do not fit the endpoint."""
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
        """Send the call and yield its answers. `opened` receives the connection, so that `stop` and `kill` reach it."""
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

    async def later(
        self,
        *arguments: Any,
        delay: float = 0.0,
        key: str = "",
        group: str = "",
        priority: int = 0,
        retry: durable.Retry | None = None,
        **keywords: Any,
    ) -> CallRef:
        """Have a call made after `delay` seconds, at least once, and do not wait for it. The endpoint is durable or idempotent.

        The same `key` gives the same call; calls of one `group` run one after the other; a higher `priority` goes first.
        `retry`: how the call of an idempotent endpoint is tried again when it fails, `Retry()` without one; then it is paused.

        Raises:
            Invalid: the arguments do not fit, the endpoint is neither durable nor idempotent, or streams; or it is durable,
                and `retry` is given, which its steps say.
            Conflict: another call has the key, with other arguments (code `call_exists`).
            Unavailable: nobody serves the endpoint.
        """
        bound, _ = await self._bind(arguments, keywords)
        info = await self.told()
        if not info.later:
            raise _not_later(self.address, info)
        # the id is the caller's, so that an answer that was lost is asked for again and not made twice
        id = new_call_id(time_ns() // 1000)
        said = {"delay": delay, "key": key, "group": group, "priority": priority, "id": id}
        if retry is not None:
            said["retry"] = msgspec.to_builtins(retry)
        payload = self._calls.encoded(bound)
        owner = self._owner()
        return self._ref(await owner.ask("later", PATIENCE, route=self.address.route, arguments=payload, **said), owner)

    def ref(self, id: str) -> CallRef:
        """The durable call of that id, of this endpoint."""
        return self._ref(id, self._owner())

    def _owner(self) -> CallOwner:
        return CallOwner(BuiltIn(self.runtime.pool), self._owners)

    async def _owners(self) -> tuple[Instance, ...]:
        await self._calls.ready(0, count=0)  # a handle that has called nothing yet knows of no instance
        # who has the calls first: another would open what it need not
        return tuple(sorted(self._calls.instances(), key=lambda instance: not instance.data.get("jobs")))

    def _ref(self, id: str, owner: CallOwner) -> CallRef:
        return CallRef(id, owner, self._calls.decoded, self._calls.failed)

    async def with_id(self, id: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a durable endpoint under an id of the caller's own, which a repetition attaches to."""
        metadata = {**(self.options.metadata or {}), durable.HEADER: id}
        return await self.using(metadata=metadata)(*arguments, **keywords)

    # for code that cannot await

    def result(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """As `ask`, blocking this thread. `Invalid` where this thread's own event loop would have to answer."""
        bridge = self.runtime.bridge()
        return bridge.ask(self._ask_there(bridge.runtime, in_a_loop(), arguments, keywords))

    def iterate(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Iterator[Any]:
        """As `follow`, blocking this thread for each answer. Leaving the iterator early cancels the call."""
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
        """This client in another runtime."""
        address = self.address
        # The caller's loop stands while this thread waits. Where only that loop could answer, both would wait for ever.
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
        """The arguments by parameter name, and the stream that goes out apart from them."""
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
        """The parameter names, as the record of an instance lists them."""
        told = (await self.told()).parameters
        if told is None:
            raise Invalid(f"{self.address} does not tell its parameters: pass arguments by name")
        return told

    async def told(self) -> EndpointInfo:
        """What the record of an instance says of this endpoint: parameters, shape, idempotence.

        Raises:
            NotFound: instances are there and none has this endpoint; the message lists those they have.
            Unavailable: no instance is there.
        """
        view = await self.runtime.view(self.address.namespace, self.address.component)
        if not self._calls.instances() and self.options.wait > 0:
            await self._calls.ready(self.options.wait)
        # first those that would be called; then those that drain or are not ready, which know it as
        # well
        for instance in (*self._calls.instances(), *view.instances()):
            for info in instance.endpoints:
                if info.name == self.address.endpoint:
                    return info
        if others := sorted({info.name for instance in view.instances() for info in instance.endpoints}):
            where = f"{self.address.namespace}.{self.address.component}"
            raise NotFound(
                f"{where} has no endpoint {self.address.endpoint!r}; it has {', '.join(others)}"
                + nearest(self.address.endpoint, others),
                fix=absence(self.address.route, view).fix,
            )
        raise absence(self.address.route, view)


class ServiceHandle:
    """A service as its callers see it: each attribute is the `EndpointClient` of the method of that name."""

    def __init__(self, runtime: CallingRuntime, spec: ServiceSpec, options: Options, skip: OwnInstance | None) -> None:
        # One private entry instead of attributes: an endpoint may be named `spec` or `options` and must be found.
        self.__dict__["_about"] = (runtime, spec, options, skip)

    def __getattr__(self, name: str) -> EndpointClient:
        runtime, spec, options, skip = self.__dict__["_about"]
        for endpoint in spec.endpoints:
            if name == (endpoint.attribute or endpoint.name):
                address = Address(spec.namespace, spec.name, endpoint.name)
                client = EndpointClient(runtime, address, endpoint, options, skip)
                self.__dict__[name] = client  # `__getattr__` is not asked again
                return client
        raise AttributeError(f"{spec.address} has no endpoint {name!r}")

    def __dir__(self) -> list[str]:
        return [endpoint.attribute or endpoint.name for endpoint in self.__dict__["_about"][1].endpoints]

    def __repr__(self) -> str:
        return f"<handle of {self.__dict__['_about'][1].address}>"


def _not_later(address: Address, info: EndpointInfo) -> Invalid:
    """Why a call of an endpoint cannot be made later, and what to declare."""
    if info.shape is not Shape.UNARY:
        return Invalid(f"{address} streams: nobody would read what a call that is made later gives")
    if info.idempotent:
        return Invalid(
            f"{address} is served by a function: nothing of its calls is kept",
            fix="Serve it by a class that is marked with @service.",
        )
    return Invalid(
        f"{address} is neither durable nor idempotent: a call that is made later is made again when its process dies",
        fix="Declare it @endpoint(durable=True), or idempotent=True where running it twice does no harm.",
    )


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

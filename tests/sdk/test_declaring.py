"""What a class says with its marks, and what is refused when it is declared."""

import abc
import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

import bema
from bema import (
    BadDeclaration,
    Call,
    async_init,
    depends,
    endpoint,
    entrypoint,
    liveness,
    on_shutdown,
    readiness,
    service,
    spec_of,
)
from bema.core.spec import Shape


class Request(msgspec.Struct):
    text: str


@service(name="base", namespace="demo")
class Base:
    """A service of every shape."""

    def __init__(self, size: int = 3) -> None:
        self.size = size

    @async_init
    async def open(self) -> None: ...

    @endpoint()
    async def one(self, request: Request, times: int = 1) -> str:
        """One answer."""
        return request.text * times

    @endpoint(idempotent=True)
    async def many(self, request: Request) -> AsyncIterator[int]:
        yield 1

    @endpoint
    async def collect(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @endpoint(name="renamed")
    async def both(self, numbers: AsyncIterator[int], call: Call) -> AsyncIterator[str]:
        async for number in numbers:
            yield f"{call.route} {number}"

    @endpoint()
    def threaded(self, a, b=2):
        return a + b

    @endpoint()
    def threaded_stream(self, n: int) -> Iterator[int]:
        yield from range(n)

    @endpoint()
    def passed_on(self, request: Request) -> AsyncIterator[int]:
        return self.many(request)

    @on_shutdown
    def shut(self) -> None: ...

    @readiness
    def ready(self) -> bool:
        return True

    @liveness
    async def alive(self) -> bool:
        return True


def test_the_class_stays_a_class():
    made = Base(size=4)
    assert isinstance(made, Base)
    assert made.size == 4
    assert Base.__doc__ == "A service of every shape."
    assert list(inspect.signature(Base).parameters) == ["size"]
    assert inspect.signature(Base.one).return_annotation is str
    assert (Base.namespace, Base.name) == ("demo", "base")  # type: ignore[attr-defined]
    assert inspect.iscoroutinefunction(Base.start)  # type: ignore[attr-defined]


def test_start_shows_its_five_steps():
    source = inspect.getsource(Base.start)  # type: ignore[attr-defined]
    steps = [line.split('"')[1] for line in source.splitlines() if "life.step(" in line]
    assert steps == ["handshake", "context", "construct", "async_init", "entrypoint"]
    assert len(source.splitlines()) < 20


def test_the_spec_is_what_the_class_says():
    spec = spec_of(Base)
    assert (spec.address, spec.doc, spec.abstract) == ("demo.base", "A service of every shape.", False)
    assert {e.name: (e.shape, e.threaded) for e in spec.endpoints} == {
        "one": (Shape.UNARY, False),
        "many": (Shape.STREAM, False),
        "collect": (Shape.COLLECT, False),
        "renamed": (Shape.BOTH, False),
        "threaded": (Shape.UNARY, True),
        "threaded_stream": (Shape.STREAM, True),
        "passed_on": (Shape.STREAM, False),
    }
    one = spec.endpoint("one")
    assert one is not None
    assert [(p.name, p.type, p.required, p.default) for p in one.parameters] == [
        ("request", Request, True, None),
        ("times", int, False, 1),
    ]
    assert (one.returns, one.doc) == (str, "One answer.")
    many, both, threaded = spec.endpoint("many"), spec.endpoint("renamed"), spec.endpoint("threaded")
    assert many is not None and both is not None and threaded is not None
    assert many.returns is int and many.idempotent
    assert (both.incoming, both.facts["requests"], both.takes_call, both.attribute) == ("numbers", int, "call", "both")
    assert both.parameters == ()
    assert [p.type for p in threaded.parameters] == [Any, Any]
    assert spec_of(Base) is spec


def test_hooks_and_endpoints_are_inherited_base_first():
    @service(namespace="demo")
    class Derived(Base):
        @async_init
        def more(self) -> None: ...

        async def open(self) -> None:  # the mark belongs to the name
            ...

        async def one(self, request: Request, times: int = 1) -> str:
            return "other"

        collect = None  # type: ignore[assignment]

        @endpoint()
        async def own(self) -> None: ...

        @entrypoint
        async def go(self) -> None: ...

    spec = spec_of(Derived)
    assert (spec.name, spec_of(Base).name) == ("Derived", "base")
    assert spec.hooks.init == ("open", "more")
    assert spec.hooks.shutdown == ("shut",)
    assert (spec.hooks.readiness, spec.hooks.liveness) == (("ready",), ("alive",))
    assert spec.hooks.entrypoint == "go"
    names = [e.name for e in spec.endpoints]
    assert names[0] == "one" and names[-1] == "own" and "collect" not in names
    assert spec_of(Base).hooks.entrypoint is None


def test_without_parentheses_everything_is_the_default():
    @service
    class Plain: ...

    assert spec_of(Plain).address == "default.Plain"


def test_names_of_the_class_s_own_are_left_alone():
    @service(name="renamed", namespace="demo")
    class Own:
        name = "mine"

        @endpoint()
        async def start(self) -> str:
            return "started"

    assert Own.name == "mine"
    assert spec_of(Own).name == "renamed"
    assert [e.name for e in spec_of(Own).endpoints] == ["start"]


@service(namespace="demo", abstract=True)
class Speaks(abc.ABC):
    @endpoint()
    @abc.abstractmethod
    def say(self, text: str) -> AsyncIterator[str]: ...

    @endpoint()
    @abc.abstractmethod
    async def count(self) -> int: ...


def test_an_abstract_service_declares_and_others_implement():
    @service(namespace="demo")
    class Parrot(Speaks):
        async def say(self, text: str) -> AsyncIterator[str]:
            yield text

        async def count(self) -> int:
            return 1

    assert spec_of(Speaks).abstract
    shapes = {e.name: e.shape for e in spec_of(Speaks).endpoints}
    assert shapes == {e.name: e.shape for e in spec_of(Parrot).endpoints}
    assert shapes == {"say": Shape.STREAM, "count": Shape.UNARY}


def test_what_is_missing_of_an_abstract_service_is_named():
    with pytest.raises(BadDeclaration, match="Half does not define count, say"):

        @service()
        class Half(Speaks): ...


def test_an_implementation_of_another_shape_is_refused():
    @service()
    class Other(Speaks):
        async def say(self, text: str) -> str:  # type: ignore[override]
            return text

        async def count(self) -> int:
            return 1

    with pytest.raises(BadDeclaration, match=r"Other.say is unary, .* declares it stream"):
        spec_of(Other)


@pytest.mark.parametrize("name", ["", "1st", "a.b", "é", "x" * 64, "a b"])
def test_names_that_are_no_names_are_refused(name):
    with pytest.raises(BadDeclaration, match="is not a"):
        service(name=name)(type("Anything", (), {}))
    with pytest.raises(BadDeclaration, match="is not a"):
        service(namespace=name)(type("Anything", (), {}))


def declared(**methods):
    return service(name="bad")(type("Bad", (), methods))


async def star(self, *words): ...
async def keywords(self, **words): ...
async def positional(self, word, /): ...
async def selfless(): ...


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (star, r"star: parameter \*words cannot travel"),
        (keywords, r"parameter \*\*words cannot travel"),
        (positional, "positional-only"),
        (selfless, "takes no self"),
    ],
)
def test_signatures_that_cannot_travel_are_refused(function, sentence):
    with pytest.raises(BadDeclaration, match=sentence):
        declared(method=endpoint(function))
    del function.__bema_mark__


async def unresolved(self, request: "Nowhere"): ...  # type: ignore[name-defined] # noqa: F821
async def two_streams(self, a: AsyncIterator[int], b: AsyncIterator[int]): ...
async def silent(self) -> AsyncIterator[int]:  # type: ignore[empty-body]
    ...


async def yields_a_number(self) -> int:  # type: ignore[misc]
    yield 1


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (unresolved, "unresolved: an annotation cannot be resolved: (parameter|what it returns).*Nowhere"),
        (two_streams, "'a' and 'b' are both streams"),
        (silent, "yields nothing"),
        (yields_a_number, "yields, but is declared to return int"),
    ],
)
def test_shapes_that_cannot_be_told_are_refused_when_the_spec_is_read(function, sentence):
    with pytest.raises(BadDeclaration, match=sentence):
        spec_of(declared(method=endpoint(function)))
    del function.__bema_mark__


def test_what_is_no_method_or_no_class_is_refused():
    with pytest.raises(BadDeclaration, match="decorates methods"):
        endpoint()(42)  # type: ignore[type-var]
    with pytest.raises(BadDeclaration, match="decorates methods"):
        async_init(staticmethod(lambda: None))
    with pytest.raises(BadDeclaration, match="decorates classes"):
        service()(lambda: None)  # type: ignore[type-var]
    with pytest.raises(BadDeclaration, match="is not a service"):
        spec_of(int)
    with pytest.raises(BadDeclaration, match="async def"):
        entrypoint(lambda self: None)
    with pytest.raises(BadDeclaration, match="identifier"):
        endpoint(name="a-b")


def test_doubles_are_refused():
    async def method(self): ...

    with pytest.raises(BadDeclaration, match="is marked twice: @endpoint and @init"):
        async_init(endpoint()(method))

    async def one(self): ...
    async def two(self): ...

    with pytest.raises(BadDeclaration, match="two endpoints 'same': one and two"):
        declared(one=endpoint(name="same")(one), two=endpoint(name="same")(two))

    async def first(self): ...
    async def second(self): ...

    with pytest.raises(BadDeclaration, match="two entrypoints: first and second"):
        declared(first=entrypoint(first), second=entrypoint(second))


def test_facts_are_kept_for_the_rooms_that_know_them():
    @service(extra={"image": "python:3.11"})
    class Stored:
        @endpoint(extra={"route": "/get"})
        async def get(self) -> None: ...

    assert spec_of(Stored).facts == {"image": "python:3.11"}
    assert spec_of(Stored).endpoints[0].facts == {"route": "/get"}


@pytest.mark.parametrize(
    ("decorator", "options", "sentence"),
    [
        (endpoint, {"idempotnt": True}, "@endpoint: there is no option 'idempotnt'; did you mean 'idempotent'?"),
        (service, {"slotz": 1}, "@service: there is no option 'slotz'; did you mean 'slots'?"),
        (service, {"colour": "red"}, "@service: there is no option 'colour'"),
        (service, {"slots": "4"}, "@service: slots is a whole number of at least 1, not '4'"),
        (service, {"slots": 0}, "@service: slots is a whole number of at least 1, not 0"),
        (service, {"slots": True}, "@service: slots is a whole number of at least 1, not True"),
        (service, {"slots": 1, "queue": -1}, "@service: queue is a whole number of at least 0, not -1"),
        (service, {"queue": 1.0}, "@service: queue is a whole number of at least 0, not 1.0"),
        (service, {"abstract": "no"}, "@service: abstract is True or False, not 'no'"),
        (service, {"version": "1 2"}, "@service: version '1 2' is not a text"),
        (service, {"version": 2}, "@service: version 2 is not a text"),
        (service, {"extra": ["image"]}, r"@service: extra is a mapping by the names of rooms, not \['image'\]"),
        (service, {"extra": {3: 4}}, "@service: extra has the key 3, which is no name of a room"),
        (service, {"extra": {"slots": 4}}, "'slots' is an option or read from the signature, and no room"),
        (endpoint, {"extra": {"requests": int}}, "'requests' is an option or read from the signature"),
        (endpoint, {"idempotent": "no"}, "@endpoint: idempotent is True or False, not 'no'"),
        (endpoint, {"raises": "KeyError"}, r"raises=\.\.\.\) takes exception types, not 'KeyError'"),
        (async_init, {"timeout": 3}, "@async_init: there is no option 'timeout'; it has none"),
        (on_shutdown, {}, "@on_shutdown has no options: write it without parentheses"),
        (
            functools.partial(depends, Base),
            {"timeoutt": 1},
            "a client has no option 'timeoutt'; did you mean 'timeout'?",
        ),
        (
            functools.partial(depends, Base),
            {"timeout": 0},
            r"depends\(\): timeout is a number of seconds, more than 0, not 0",
        ),
        (
            functools.partial(depends, Base),
            {"wait": -1},
            r"depends\(\): wait is a number of seconds, at least 0, not -1",
        ),
        (
            functools.partial(bema.DistributedRuntime, bema.MemoryDiscovery()),
            {"slots": 0},
            "slots is a whole number of at least 1",
        ),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_where_it_is_declared(decorator, options, sentence):
    with pytest.raises(BadDeclaration, match=sentence):
        decorator(**options)


def test_what_options_there_are_stands_in_the_remedy():
    with pytest.raises(BadDeclaration) as refused:
        endpoint(retries=3)  # type: ignore[call-overload]
    assert refused.value.fix == (
        "The options are durable, extra, idempotent, name, raises, resumable; what another room knows goes into extra={ROOM: ...}."
    )


def test_options_are_read_into_the_spec():
    @service(name="bounded", version="1.2", slots=4, queue=8)
    class Bounded: ...

    spec = spec_of(Bounded)
    assert (spec.version, spec.slots, spec.queue, spec.facts) == ("1.2", 4, 8, {})
    assert (spec_of(Base).version, spec_of(Base).slots, spec_of(Base).queue) == ("", None, 0)


def test_what_a_decorator_takes_is_what_it_shows():
    assert list(inspect.signature(endpoint).parameters) == [
        "function",
        "name",
        "idempotent",
        "resumable",
        "durable",
        "raises",
        "extra",
    ]
    assert "**" not in str(inspect.signature(service))


@pytest.mark.parametrize("wrapper", [classmethod, staticmethod, property, functools.cached_property])
@pytest.mark.parametrize("mark", [endpoint, async_init])
def test_a_mark_below_a_descriptor_is_refused(mark, wrapper):
    def method(self): ...

    with pytest.raises(
        BadDeclaration, match=rf"Bad.method is marked @\w+ but .*: it is a {wrapper.__name__}"
    ) as refused:
        declared(method=wrapper(mark(method)))
    assert refused.value.fix == "A mark belongs on a plain method, which takes self."

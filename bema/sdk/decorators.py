"""The decorators of a service. Law: a decorator marks what it is given and returns it; the class stays a class.

`@service` adds three attributes where the class does not define them itself: `name`, `namespace`, and `start`, a coroutine.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

import msgspec

from bema.core.durable import ON_DEMAND, Queue
from bema.core.errors import BadDeclaration
from bema.core.naming import check_endpoint, check_name
from bema.core.spec import RESERVED
from bema.sdk import lifecycle, options, spec
from bema.sdk.spec import Kind, Mark, ServiceMark

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
Raises = type[Exception] | Iterable[type[Exception]]


@overload
def service(cls: C, /) -> C: ...
@overload
def service(
    *,
    name: str | None = None,
    namespace: str = "default",
    version: str = "",
    abstract: bool = False,
    slots: int | None = None,
    queue: int = 0,
    extra: Mapping[str, Any] | None = None,
) -> Callable[[C], C]: ...
@options.closed
def service(
    cls: Any = None,
    /,
    *,
    name: str | None = None,
    namespace: str = "default",
    version: str = "",
    abstract: bool = False,
    slots: int | None = None,
    queue: int = 0,
    extra: Mapping[str, Any] | None = None,
) -> Any:
    """Mark a class as a service: other processes can call its marked methods at `namespace.name`.

    - `name`: the component that the class serves; without one, the class's name.
    - `namespace`: the first part of the address; `default`.
    - `version`: a text of at most 63 characters without spaces, which the description shows to callers. bema itself goes
      by the version of the deployment.
    - `abstract`: the class declares endpoints that other classes implement. It cannot start; clients can be made of it.
    - `slots`: how many calls an instance runs at once, at least 1; without a number, as many as come.
    - `queue`: how many calls wait when all slots are taken, at least 0; the next is refused before it runs. 0.
    - `extra`: data for extensions, by the name of the extension.

    Raises:
        BadDeclaration: an option is unknown or has an impossible value, or a marked method cannot be served.
    """
    said = ServiceMark(
        name="",
        namespace=check_name(namespace, "namespace"),
        version=options.version(version),
        abstract=options.flag("@service", "abstract", abstract),
        slots=options.count("@service", "slots", slots, least=1),
        queue=options.count("@service", "queue", queue, least=0) or 0,
        facts=options.rooms("@service", extra, taken=options.names(service)),
    )

    def decorate(cls: C) -> C:
        if not inspect.isclass(cls):
            raise BadDeclaration(f"@service decorates classes, not {cls!r}")
        named = check_name(cls.__name__ if name is None else name, "service name")
        facts = {**said.facts, **vars(cls).get("__bema_facts__", {})}
        _declare(cls, msgspec.structs.replace(said, name=named, facts=facts))
        return cls

    return decorate if cls is None else decorate(cls)


def _declare(cls: type, said: ServiceMark) -> None:
    setattr(cls, spec.SERVICE, said)
    spec.check(cls)
    # `getattr_static`: looking must not run a property or a metaclass of the user's
    for attribute, value in (("name", said.name), ("namespace", said.namespace)):
        if isinstance(inspect.getattr_static(cls, attribute, ""), str) and attribute not in vars(cls):
            setattr(cls, attribute, value)
    for attribute, function in (("start", lifecycle.start), ("__bema_spec__", spec.spec_of)):
        if inspect.getattr_static(cls, attribute, None) is None:
            setattr(cls, attribute, classmethod(function))


@overload
def endpoint(function: F, /) -> F: ...
@overload
def endpoint(
    *,
    name: str = "",
    idempotent: bool = False,
    resumable: bool = False,
    durable: bool | Queue = False,
    raises: Raises = (),
    extra: Mapping[str, Any] | None = None,
) -> Callable[[F], F]: ...
@options.closed
def endpoint(
    function: Any = None,
    /,
    *,
    name: str = "",
    idempotent: bool = False,
    resumable: bool = False,
    durable: bool | Queue = False,
    raises: Raises = (),
    extra: Mapping[str, Any] | None = None,
) -> Any:
    """Mark a method as an endpoint, which other processes can call.

    The signature decides the shape: an `async def` answers once, an async generator streams its answers, and a parameter
    annotated as `AsyncIterator[T]` receives a stream. A plain `def` runs in a thread.

    - `name`: the last part of the address; without one, the method's name.
    - `idempotent`: running the method twice does no harm, so that clients repeat a call that was lost, and may have one made
      later. False.
    - `resumable`: the method begins its stream behind `call.resume`, the number of items that its caller has, or the cursor
      of the last one (`yield Item(value, cursor=...)`). So a stream goes on with another instance when this one ends. False.
    - `durable`: its calls are written down and finished whatever dies: what the handler does in `call.step` is not done
      again, and it can wait for days. A `Queue` says so too, and how many run at once. False.
    - `raises`: exception types of your own that reach the caller as themselves, with their attributes. Any other exception
      that is not one of Python's own or bema's reaches the caller as `RemoteError`.
    - `extra`: data for extensions, by the name of the extension.

    Raises:
        BadDeclaration: an option is unknown or has an impossible value, or what is decorated is no function.
    """
    if name != "":
        check_endpoint(name)
    facts = options.rooms("@endpoint", extra, taken={*options.names(endpoint), *RESERVED})
    if declared := _exceptions(raises):
        facts["raises"] = declared
    queue = durable if isinstance(durable, Queue) else None
    said = {"idempotent": idempotent, "resumable": resumable, "durable": durable if queue is None else True}
    flags = {option: options.flag("@endpoint", option, value) for option, value in said.items()}
    if flags["durable"]:
        facts.setdefault("jobs", {})  # the extension that keeps them
    elif flags["idempotent"]:
        facts["on_demand"] = ON_DEMAND
    if queue is not None:
        facts["jobs"] = {**options.mapping("@endpoint", "extra['jobs']", facts["jobs"]), "queue": queue}
    mark = Mark("endpoint", name, facts=facts, **flags)

    def decorate(function: F) -> F:
        if not inspect.isfunction(function):
            raise BadDeclaration(f"@endpoint decorates methods, not {function!r}")
        spec.mark(function, mark)
        return function

    return decorate if function is None else decorate(function)


def _exceptions(raises: Raises) -> tuple[type[Exception], ...]:
    several = isinstance(raises, Iterable) and not isinstance(raises, type | str)
    declared: tuple[Any, ...] = tuple(raises) if several else (raises,)  # type: ignore[arg-type]
    for one in declared:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise BadDeclaration(f"@endpoint(raises=...) takes exception types, not {one!r}")
    return declared


@options.bare
def async_init(function: F, /) -> F:
    """Mark a method that runs after the constructor and before anything is served; plain or `async def`.

    Several run in order of definition. An exception ends the start. `BadDeclaration` for what is no function.
    """
    return _marked(function, "init")


@options.bare
def on_shutdown(function: F, /) -> F:
    """Mark a method that runs once, after the last call has ended; plain or `async def`.

    An exception is logged, and the other hooks still run. `BadDeclaration` for what is no function.
    """
    return _marked(function, "shutdown")


@options.bare
def entrypoint(function: F, /) -> F:
    """Mark the `async def` that serves in place of the default: only the endpoints that it serves can be called.

    It may ask for a `Context` as the constructor may.

    Raises:
        BadDeclaration: the method is no `async def`. `@service` refuses a class with two entrypoints.
    """
    if not inspect.iscoroutinefunction(function):
        raise BadDeclaration(
            f"@entrypoint decorates an `async def`, not {getattr(function, '__qualname__', function)!r}"
        )
    return _marked(function, "entrypoint")


@options.bare
def liveness(function: F, /) -> F:
    """Mark a method without arguments that tells whether the process should live on, by a true or false answer.

    An exception, or no answer within the limit `health_answer`, counts as false. Three times false in a row ends the
    process. `BadDeclaration` for what is no function.
    """
    return _marked(function, "liveness")


@options.bare
def readiness(function: F, /) -> F:
    """Mark a method without arguments that tells whether the instance can take calls now, by a true or false answer.

    While it answers false, raises, or does not answer within the limit `health_answer`, no new caller is sent to the
    instance. `BadDeclaration` for what is no function.
    """
    return _marked(function, "readiness")


def _marked(function: F, kind: Kind) -> F:
    if not inspect.isfunction(function):
        raise BadDeclaration(f"@{kind} decorates methods, not {function!r}")
    spec.mark(function, Mark(kind))
    return function

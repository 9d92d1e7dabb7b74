"""The marks of a service. Law: a decorator marks and returns what it was given; the class stays a class.

`@service` adds to the class what it does not define itself: `name`, `namespace`, and `start`, a coroutine.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from bema.core.errors import BadDeclaration
from bema.core.naming import check_endpoint, check_name
from bema.sdk import lifecycle, spec
from bema.sdk.spec import Kind, Mark, ServiceMark

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
Raises = type[Exception] | Iterable[type[Exception]]


@overload
def service(cls: C, /) -> C: ...
@overload
def service(
    *, name: str | None = None, namespace: str = "default", abstract: bool = False, **facts: Any
) -> Callable[[C], C]: ...
def service(
    cls: Any = None,
    /,
    *,
    name: str | None = None,
    namespace: str = "default",
    abstract: bool = False,
    **facts: Any,
) -> Any:
    """A class whose marked methods can be called from elsewhere, at `namespace.name`.

    Without a `name` it is the class's. An `abstract` service declares endpoints that others implement; it cannot start,
    and clients can be made of it. Further keywords are kept as facts for the rooms that know them: `slots` is how many
    calls an instance runs at once, `queue` how many more wait; the rest is refused before it runs.
    """

    def decorate(cls: C) -> C:
        if not inspect.isclass(cls):
            raise BadDeclaration(f"@service decorates classes, not {cls!r}")
        _declare(
            cls,
            ServiceMark(
                name=check_name(cls.__name__ if name is None else name, "service name"),
                namespace=check_name(namespace, "namespace"),
                abstract=abstract,
                facts={**vars(cls).get("__bema_facts__", {}), **facts},
            ),
        )
        return cls

    return decorate if cls is None else decorate(cls)


def _declare(cls: type, said: ServiceMark) -> None:
    setattr(cls, spec.SERVICE, said)
    spec.check(cls)
    for attribute, value in (("name", said.name), ("namespace", said.namespace)):
        if isinstance(inspect.getattr_static(cls, attribute, ""), str) and attribute not in vars(cls):
            setattr(cls, attribute, value)
    for attribute, function in (("start", lifecycle.start), ("__bema_spec__", spec.spec_of)):
        if inspect.getattr_static(cls, attribute, None) is None:
            setattr(cls, attribute, classmethod(function))


@overload
def endpoint(function: F, /) -> F: ...
@overload
def endpoint(*, name: str = "", idempotent: bool = False, raises: Raises = (), **facts: Any) -> Callable[[F], F]: ...
def endpoint(
    function: Any = None, /, *, name: str = "", idempotent: bool = False, raises: Raises = (), **facts: Any
) -> Any:
    """A method that can be called from elsewhere.

    Its shape is its own: `async def` answers once, an async generator streams, a parameter annotated as AsyncIterator
    receives a stream, a plain `def` runs in a thread. `idempotent` says that running it twice does no harm. Exception
    types of your own that are listed in `raises` reach the caller as themselves, with attributes; others as `RemoteError`.
    """
    if name:
        check_endpoint(name)
    if declared := _exceptions(raises):
        facts["raises"] = declared

    def decorate(function: F) -> F:
        if not inspect.isfunction(function):
            raise BadDeclaration(f"@endpoint decorates methods, not {function!r}")
        spec.mark(function, Mark("endpoint", name, idempotent, facts))
        return function

    return decorate if function is None else decorate(function)


def _exceptions(raises: Raises) -> tuple[type[Exception], ...]:
    declared = (raises,) if isinstance(raises, type) else tuple(raises)
    for one in declared:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise BadDeclaration(f"@endpoint(raises=...) takes exception types, not {one!r}")
    return declared


def async_init(function: F) -> F:
    """Runs after the constructor and before anything is served; plain or `async def`. Several run in order."""
    return _marked(function, "init")


def on_shutdown(function: F) -> F:
    """Runs once, after the last call has ended; plain or `async def`."""
    return _marked(function, "shutdown")


def entrypoint(function: F) -> F:
    """Takes over the serving: nothing is served that this `async def` does not serve."""
    if not inspect.iscoroutinefunction(function):
        raise BadDeclaration(
            f"@entrypoint decorates an `async def`, not {getattr(function, '__qualname__', function)!r}"
        )
    return _marked(function, "entrypoint")


def liveness(function: F) -> F:
    """Tells whether the process should live on: a method without arguments whose answer is true or false."""
    return _marked(function, "liveness")


def readiness(function: F) -> F:
    """Tells whether the instance can take calls now: a method without arguments whose answer is true or false."""
    return _marked(function, "readiness")


def _marked(function: F, kind: Kind) -> F:
    if not inspect.isfunction(function):
        raise BadDeclaration(f"@{kind} decorates methods, not {function!r}")
    spec.mark(function, Mark(kind))
    return function

"""depends(): a handle of another service, as an attribute of a service class or a default of its constructor.

Laws: the handle is made when it is first read, once per runtime, and its calls wait for an instance. A dependency starts
nothing: no graph of processes stands behind it. It is another service, though it bears one's own name: its calls never come
back to the instance that makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from bema.core.deferred import deferred
from bema.core.errors import BadDeclaration
from bema.runtime.distributed import DistributedRuntime
from bema.sdk.options import seconds

if TYPE_CHECKING:
    from bema.runtime import handles
else:  # of a service that depends on another
    handles = deferred("bema.runtime.handles")

T = TypeVar("T")

_RUNTIME = "__bema_runtime__"
_constructing: ContextVar[DistributedRuntime | None] = ContextVar("bema_constructing", default=None)


def depends(service: Callable[..., T], **options: Unpack[handles.GivenOptions]) -> T:
    """A handle of another service: `worker = depends(Worker)` in a class, then `await self.worker.method()`.

    - `timeout`: seconds that a call may take, more than 0; without one, the rest of the call that is being answered.
    - `wait`: seconds that a call waits for an instance to appear, at least 0; without one, the limit `start`.
    - `metadata`: texts by name that travel with each call.
    - `instance`: the id of the one instance to call.
    - `pick`: the name of a picker; without one, the picker in use.
    - `lane`: whose instances to call: `dev`, `hand` or `deployment/NAME`.

    Raises:
        BadDeclaration: `service` is no service class, an option is unknown, or a time is impossible.
    """
    handles.Options.of(options)
    seconds("depends()", "timeout", options.get("timeout"))
    seconds("depends()", "wait", options.get("wait"), zero=True)
    return cast("T", Depends(service, options))


class Depends:
    """The attribute that `depends()` leaves on the class. A test replaces it by assigning to the instance's attribute."""

    # no `__set__`: Python looks into the instance before a descriptor without one, so an assigned stand-in is found

    def __init__(self, service: Callable[..., Any], options: handles.GivenOptions) -> None:
        if not hasattr(service, "__bema_spec__"):
            raise BadDeclaration(f"depends({getattr(service, '__qualname__', service)}): it is not a service class")
        self._service = service
        self._options = options
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        # a constructor may read its dependencies, and its object is bound after it
        runtime = getattr(instance, _RUNTIME, None) or _constructing.get()
        if runtime is None:
            raise BadDeclaration(
                f"{type(instance).__qualname__}.{self._name} has no runtime: the object was not made by start()",
                fix=f"Start the service, or assign a stand-in to `{self._name}` in a test.",
            )
        return self.of(runtime)

    def of(self, runtime: DistributedRuntime) -> Any:
        """The handle that this dependency stands for in `runtime`."""
        options: handles.GivenOptions = {"wait": runtime.limits.start, **self._options}
        return runtime.dependency(self._service, **options)


@contextmanager
def constructing(runtime: DistributedRuntime) -> Iterator[None]:
    """Let dependencies be read inside of a constructor, whose object is not bound to a runtime yet."""
    token = _constructing.set(runtime)
    try:
        yield
    finally:
        _constructing.reset(token)


def bind(instance: Any, runtime: DistributedRuntime) -> None:
    """Bind a service object to the runtime that its dependencies call through, where the class has dependencies.

    Raises:
        BadDeclaration: the class has `__slots__` without a place for the runtime.
    """
    if any(isinstance(value, Depends) for base in type(instance).__mro__ for value in vars(base).values()):
        try:
            # past the class's own `__setattr__`: a frozen dataclass refuses
            object.__setattr__(instance, _RUNTIME, runtime)
        except AttributeError as error:
            raise BadDeclaration(
                f"{type(instance).__qualname__} has __slots__ and uses depends(): add {_RUNTIME!r} to its slots"
            ) from error

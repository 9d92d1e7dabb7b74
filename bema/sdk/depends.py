"""depends(): another service, as an attribute of a service or as a constructor's default.

What is read is a typed handle: lazy, one per runtime, and its calls wait until an instance is there. It starts nothing:
there is no graph of processes behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, Unpack, cast

from bema.core.errors import BadDeclaration
from bema.runtime.distributed import DistributedRuntime
from bema.runtime.handles import GivenOptions, Options
from bema.sdk.options import seconds

T = TypeVar("T")

_RUNTIME = "__bema_runtime__"
_constructing: ContextVar[DistributedRuntime | None] = ContextVar("bema_constructing", default=None)


def depends(service: Callable[..., T], **options: Unpack[GivenOptions]) -> T:
    """A handle of `service`. Options as of `runtime.client`; `wait` is how long a call waits for an instance.

    - `timeout`: seconds that a call may take, more than 0; without one, as long as the call that is being answered has.
    - `wait`: seconds, at least 0; the limit `start`.
    - `metadata`: texts by name that go with each call.
    - `instance`: the id of the one to call.
    - `pick`: the name of a picker; without one, the picker in use.

    An unknown option, and a time that cannot be meant, are `BadDeclaration`.
    """
    Options.of(options)
    seconds("depends()", "timeout", options.get("timeout"))
    seconds("depends()", "wait", options.get("wait"), zero=True)
    return cast("T", Depends(service, options))


class Depends:
    """What `depends()` leaves on the class; assigning to the attribute of an instance replaces it, as tests do."""

    def __init__(self, service: Callable[..., Any], options: GivenOptions) -> None:
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
        runtime = getattr(instance, _RUNTIME, None) or _constructing.get()
        if runtime is None:
            raise BadDeclaration(
                f"{type(instance).__qualname__}.{self._name} has no runtime: the object was not made by start()",
                fix=f"Start the service, or assign a stand-in to `{self._name}` in a test.",
            )
        return self.of(runtime)

    def of(self, runtime: DistributedRuntime) -> Any:
        options: GivenOptions = {"wait": runtime.limits.start, **self._options}
        return runtime.client(self._service, **options)


@contextmanager
def constructing(runtime: DistributedRuntime) -> Iterator[None]:
    """While a constructor runs, its object has no runtime of its own yet."""
    token = _constructing.set(runtime)
    try:
        yield
    finally:
        _constructing.reset(token)


def bind(instance: Any, runtime: DistributedRuntime) -> None:
    """Let the dependencies of `instance` be found; needed only where it has any."""
    if any(isinstance(value, Depends) for base in type(instance).__mro__ for value in vars(base).values()):
        try:
            object.__setattr__(instance, _RUNTIME, runtime)
        except AttributeError as error:
            raise BadDeclaration(
                f"{type(instance).__qualname__} has __slots__ and uses depends(): add {_RUNTIME!r} to its slots"
            ) from error

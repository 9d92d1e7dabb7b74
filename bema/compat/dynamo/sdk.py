"""`dynamo.sdk`: the authoring names. Every one is an alias of ours; `service` and `endpoint` take that system's options too.

What bema does not act on (resources, workers, an image) is kept under `dynamo` of the facts of a class or method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, overload

from bema.runtime.distributed import DistributedRuntime
from bema.sdk import decorators
from bema.sdk.context import Context as DynamoContext
from bema.sdk.decorators import async_init, entrypoint, liveness, on_shutdown, readiness
from bema.sdk.depends import depends
from bema.sdk.options import names

__all__ = [
    "DynamoContext",
    "ServiceInterface",
    "async_init",
    "async_on_start",
    "depends",
    "endpoint",
    "entrypoint",
    "liveness",
    "on_shutdown",
    "readiness",
    "service",
]

async_on_start = async_init

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
ROOM = "dynamo"


@overload
def service(cls: C, /) -> C: ...
@overload
def service(*, dynamo: Mapping[str, Any] | None = None, **options: Any) -> Callable[[C], C]: ...
def service(cls: Any = None, /, *, dynamo: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """`bema.service`; the namespace may stand in `dynamo`, and options that are not ours are kept."""
    said = dict(dynamo or {})
    if "namespace" in said:
        options.setdefault("namespace", said["namespace"])
    return _kept(decorators.service, cls, options, said)


@overload
def endpoint(function: F, /) -> F: ...
@overload
def endpoint(**options: Any) -> Callable[[F], F]: ...
def endpoint(function: Any = None, /, **options: Any) -> Any:
    """`bema.endpoint`; options that are not ours are kept."""
    return _kept(decorators.endpoint, function, options, {})


def _kept(decorator: Callable[..., Any], decorated: Any, options: dict[str, Any], theirs: dict[str, Any]) -> Any:
    ours = names(decorator)
    theirs |= {name: options.pop(name) for name in tuple(options) if name not in ours}
    if theirs:
        options["extra"] = {**(options.get("extra") or {}), ROOM: theirs}
    return decorator(**options) if decorated is None else decorator(**options)(decorated)


class ServiceInterface(Protocol):
    """What `@service` makes of a class, for annotations."""

    name: str
    namespace: str

    @classmethod
    async def start(cls, runtime: DistributedRuntime | None = None) -> Any:
        """Run the class as a service of this process."""
        ...

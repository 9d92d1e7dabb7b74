"""`dynamo.sdk`: the authoring names. Every one is an alias of ours."""

from __future__ import annotations

from typing import Any, Protocol

from bema.runtime.distributed import DistributedRuntime
from bema.sdk.context import Context as DynamoContext
from bema.sdk.decorators import async_init, endpoint, entrypoint, liveness, on_shutdown, readiness, service
from bema.sdk.depends import depends

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


class ServiceInterface(Protocol):
    """What `@service` makes of a class, for annotations."""

    name: str
    namespace: str

    @classmethod
    async def start(cls, runtime: DistributedRuntime | None = None) -> Any:
        """Run the class as a service of this process."""
        ...

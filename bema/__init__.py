"""Turn Python classes and scripts into services. The public names, in story order; everything else may change.

A name is resolved when it is first used, so that `import bema` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bema.core.call import Call as Call
    from bema.core.call import Item as Item
    from bema.core.durable import Queue as Queue
    from bema.core.durable import Retry as Retry
    from bema.core.errors import BadAnswer as BadAnswer
    from bema.core.errors import BadDeclaration as BadDeclaration
    from bema.core.errors import BemaError as BemaError
    from bema.core.errors import Conflict as Conflict
    from bema.core.errors import DeadlineExceeded as DeadlineExceeded
    from bema.core.errors import Denied as Denied
    from bema.core.errors import Disconnected as Disconnected
    from bema.core.errors import Invalid as Invalid
    from bema.core.errors import NotFound as NotFound
    from bema.core.errors import Overloaded as Overloaded
    from bema.core.errors import RemoteError as RemoteError
    from bema.core.errors import StreamCut as StreamCut
    from bema.core.errors import TooLarge as TooLarge
    from bema.core.errors import Unavailable as Unavailable
    from bema.core.version import VERSION as __version__
    from bema.runtime.discovery.memory import MemoryDiscovery as MemoryDiscovery
    from bema.runtime.distributed import DistributedRuntime as DistributedRuntime
    from bema.runtime.distributed import connect as connect
    from bema.sdk.context import Context as Context
    from bema.sdk.decorators import async_init as async_init
    from bema.sdk.decorators import endpoint as endpoint
    from bema.sdk.decorators import entrypoint as entrypoint
    from bema.sdk.decorators import liveness as liveness
    from bema.sdk.decorators import on_shutdown as on_shutdown
    from bema.sdk.decorators import readiness as readiness
    from bema.sdk.decorators import service as service
    from bema.sdk.depends import depends as depends
    from bema.sdk.lifecycle import serve as serve
    from bema.sdk.schedules import schedule as schedule
    from bema.sdk.spec import spec_of as spec_of

# name -> module; the block above says the same to type checkers, and a test holds the two together
_NAMES: dict[str, str] = {
    # author
    "service": "bema.sdk.decorators",
    "endpoint": "bema.sdk.decorators",
    "schedule": "bema.sdk.schedules",
    "async_init": "bema.sdk.decorators",
    "on_shutdown": "bema.sdk.decorators",
    "entrypoint": "bema.sdk.decorators",
    "liveness": "bema.sdk.decorators",
    "readiness": "bema.sdk.decorators",
    "depends": "bema.sdk.depends",
    "Context": "bema.sdk.context",
    "Call": "bema.core.call",
    "Item": "bema.core.call",
    "Queue": "bema.core.durable",
    "Retry": "bema.core.durable",
    "spec_of": "bema.sdk.spec",
    # run
    "serve": "bema.sdk.lifecycle",
    "connect": "bema.runtime.distributed",
    "DistributedRuntime": "bema.runtime.distributed",
    "MemoryDiscovery": "bema.runtime.discovery.memory",
    # what can go wrong
    **dict.fromkeys(
        (
            "BemaError",
            "BadDeclaration",
            "Invalid",
            "NotFound",
            "Conflict",
            "Denied",
            "Unavailable",
            "Overloaded",
            "Disconnected",
            "StreamCut",
            "DeadlineExceeded",
            "TooLarge",
            "RemoteError",
            "BadAnswer",
        ),
        "bema.core.errors",
    ),
}

__all__ = ["__version__", *_NAMES]


if not TYPE_CHECKING:  # with it, a misspelt name would be Any to type checkers

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            value: Any = importlib.import_module("bema.core.version").VERSION
        elif name in _NAMES:
            value = getattr(importlib.import_module(_NAMES[name]), name)
        else:
            raise AttributeError(f"module 'bema' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)

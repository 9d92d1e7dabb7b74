"""start(): the only boot. Whatever runs a service, by hand or by a launcher, ends here.

Law: five steps, each under its name. Nothing is listed before the fifth, a step that fails is named in the error, and
what was opened is released in reverse order however it ends.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from bema.runtime.distributed import DistributedRuntime
from bema.sdk import spec
from bema.sdk.boot import Boot, run_hooks
from bema.sdk.context import Context
from bema.sdk.health import Health

_log = logging.getLogger("bema.service")


async def start(cls: type[Any], runtime: DistributedRuntime | None = None) -> None:
    """Run `cls` as a service of this process until it is told to stop. A given runtime is used and left open."""
    async with Boot(cls, runtime) as life:
        with life.step("handshake"):  # 1: from the launcher, or a default
            init = await life.handshake()
        with life.step("context"):  # 2: discovery, transports, the place it is served at
            context = life.context(init)
        with life.step("construct"):  # 3: arguments by name or type
            service = context.construct(cls)
        with life.step("async_init"):  # 4: in order of definition
            await run_hooks(service, context.spec.hooks.init)
        with life.step("entrypoint"):  # 5: its own, or: serve every endpoint, announce, drain on Stop
            await life.live(service, entrypoint_of(service, context))


def serve(cls: type[Any], runtime: DistributedRuntime | None = None) -> Coroutine[Any, Any, None]:
    """`cls.start()`, as type checkers know it."""
    spec.mark_of(cls)
    return start(cls, runtime)


def entrypoint_of(service: Any, context: Context) -> Callable[[], Awaitable[None]]:
    """The service's own entrypoint, given what it asks for; else the default."""
    own = context.spec.hooks.entrypoint
    if own is None:
        return lambda: serve_endpoints(service, context)
    function = getattr(service, own)
    return lambda: function(**context.arguments(function))


async def serve_endpoints(service: Any, context: Context) -> None:
    """The default entrypoint: every endpoint, once the service says it is ready, until Stop."""
    if not context.spec.endpoints:
        _log.warning(
            "%s has no endpoints, so nobody can call it: mark its methods with @endpoint()", context.spec.address
        )
    for declared in context.spec.endpoints:
        await context.component.add(declared, getattr(service, declared.attribute))
    await Health(service, context.spec, context.runtime.hosting).until_ready()
    await context.component.show()
    await context.runtime.stopping.wait()

"""start(): the only boot. Whatever runs a service, by hand or by a launcher, ends here.

Law: five steps, each under its name. Nothing is listed before the fifth, a step that fails is named in the error, and
what was opened is released in reverse order however it ends.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from bema.runtime.distributed import DistributedRuntime
from bema.sdk import hooks
from bema.sdk.context import Context
from bema.sdk.life import Life, run_hooks

READY_POLL = 0.1  # how often a service that says it is not ready is asked again


async def start(cls: type[Any], runtime: DistributedRuntime | None = None) -> None:
    """Run `cls` as a service of this process until it is told to stop. A given runtime is used and left open."""
    async with Life(cls, runtime) as life:
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
    hooks.mark_of(cls)
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
    for spec in context.spec.endpoints:
        await context.component.add(spec, getattr(service, spec.attribute))
    while not await _all_true(service, context.spec.hooks.readiness):  # noqa: ASYNC110 - it is asked, it cannot tell
        await asyncio.sleep(READY_POLL)
    await context.component.show()
    await context.runtime.stopping.wait()


async def _all_true(service: Any, names: tuple[str, ...]) -> bool:
    for name in names:
        answer = getattr(service, name)()
        if not (await answer if inspect.isawaitable(answer) else answer):
            return False
    return True

"""The host of a deployed script: serves what the script holds on the socket it was given, until it is told to stop.

Called by the runner, which knows it by name only. Law: it is bound before it announces; Stop, SIGTERM and the end of the
channel all mean: take nothing new, finish within the deadline, exit 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from types import ModuleType
from typing import Any

from bema.core import settings
from bema.core.errors import BadDeclaration, BemaError, ProtocolError
from bema.runtime.process import channel, tracing
from bema.sdk import apps, lifecycle, spec
from bema.sdk.apps import asgi
from bema.sdk.apps.http_app import HttpApp
from bema.sdk.event_loop import loop_factory
from bema.sdk.signals import Signals
from bema.wire.module.handshake import Announce, Init, agree

_FAILED = 1


def run(init: dict[str, Any], descriptor: int, module: ModuleType, entry: dict[str, str]) -> None:
    """Serve `entry` of `module` until Stop. A refusal is one sentence on stderr and exit code 1."""
    phases: dict[str, int] = init.pop("phases", {})
    tracing.log_lines()
    try:
        channel.adopt(descriptor, init, phases)
        target = _find(module, entry["name"])
        if isinstance(target, type) and hasattr(target, spec.SERVICE):
            work = lifecycle.start(target)
        else:
            began = time.monotonic()
            adapted = apps.adapt(target, entry["name"])
            phases["adapt"] = _since(began)
            work = _serve_app(adapted, phases)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(work)
    except BemaError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n  fix: {error.fix}\n")
        raise SystemExit(_FAILED) from error


def _find(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise BadDeclaration(f"the script has no {name!r}", code="entry_not_found") from error
    return found


async def _serve_app(adapted: HttpApp, phases: dict[str, int]) -> None:
    limits = settings.current().limits
    ends = await channel.inherited(limits)
    assert ends is not None
    init = await ends.init()
    if init.listen_fd is None:
        raise ProtocolError("Init passes no listening socket")
    drain = limits.told(init.settings or {}).drain if init.drain_ms is None else init.drain_ms / 1000
    asked: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def stop(deadline_ms: int | None = None) -> None:
        if not asked.done():
            asked.set_result(drain if deadline_ms is None else deadline_ms / 1000)

    began = time.monotonic()

    def ready() -> None:
        phases["startup"] = _since(began)
        with contextlib.suppress(ProtocolError):  # it was told to stop meanwhile
            ends.announce(_announcement(adapted, init, phases))

    ends.stop.add_done_callback(lambda said: stop(said.result().deadline_ms))
    with Signals(stop):
        await asgi.serve(adapted, socket.socket(fileno=init.listen_fd), ready, asked)
    ends.close()


def _announcement(adapted: HttpApp, init: Init, phases: dict[str, int]) -> Announce:
    return Announce(
        listen=init.listen,
        endpoints=adapted.endpoints,
        instance=init.instance,
        protocol=agree(init.protocol),
        kind=adapted.kind,
        phases=phases,
    )


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)

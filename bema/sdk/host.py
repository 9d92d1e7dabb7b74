"""The host of a deployed script: what the script holds, served on the socket it was given.

Called by the runner, which knows it by name only. Law: a class is started, anything else is brought to the form of an
app; both by the one boot.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from types import ModuleType
from typing import Any

from bema.core.errors import BadDeclaration, ProtocolError
from bema.runtime.process import inheritance, tracing
from bema.sdk import apps, boot, lifecycle, spec
from bema.sdk.apps import asgi
from bema.sdk.apps.http_app import HttpApp
from bema.sdk.apps.report import reported
from bema.sdk.boot import Boot, Served
from bema.sdk.event_loop import loop_factory
from bema.wire.module.handshake import Announce

logger = logging.getLogger(__name__)

ANNOUNCED = 500  # routes; an announcement is one line, kept by the keeper and listed again and again
GUESSED = ("app", "application")  # names that are looked at where nothing else says what a script holds


def run(init: dict[str, Any], descriptor: int, module: ModuleType, entry: dict[str, str]) -> bool:
    """Serve `entry` of `module` until Stop. A refusal is one sentence on stderr and exit code 1.

    False, with nothing of Init taken, where the entry was guessed by its name and nothing serves it: the file is a program.
    """
    target = getattr(module, entry["name"], None) if entry["name"] in GUESSED else None
    if target is not None and not _is_service(target) and not apps.serves(target):
        kind = type(target)
        says = (
            f"{entry['name']!r} is a {kind.__module__}.{kind.__qualname__}, which is no app: the file runs as a program"
        )
        sys.stderr.write(f"bema: {says}\n")
        return False
    inheritance.adopt(descriptor, init, init.pop("phases", {}))
    tracing.log_lines()
    boot.run(_serve(module, entry["name"]), loop_factory())
    return True


def _is_service(target: Any) -> bool:
    return isinstance(target, type) and hasattr(target, spec.SERVICE)


async def _serve(module: ModuleType, name: str) -> None:
    target = _find(module, name)
    if _is_service(target):
        await lifecycle.start(target)
    else:
        await _start_app(target, name)


def _find(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise BadDeclaration(f"the script has no {name!r}", code="entry_not_found") from error
    return found


async def _start_app(target: Any, name: str) -> None:
    async with Boot(name) as starting:
        init = await starting.handshake()
        with starting.step("adapt"):
            adapted = apps.adapt(target, name)
        if init.listen_fd is None:
            raise ProtocolError("Init passes no listening socket")
        await starting.live(ServedApp(starting, adapted, socket.socket(fileno=init.listen_fd)))


class ServedApp(Served):
    """An app of the script, on the launcher's socket. It is bound before it announces."""

    def __init__(self, starting: Boot, adapted: HttpApp, listener: socket.socket) -> None:
        self._boot = starting
        self._adapted = adapted
        self._listener = listener
        self._stop: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._whole: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def serve(self) -> None:
        began = time.monotonic()

        def ready() -> None:
            self._boot.took("startup", began)
            adapted = self._adapted
            endpoints = adapted.endpoints[:ANNOUNCED]
            if len(endpoints) < len(adapted.endpoints):
                logger.warning("the app has %d routes; the first %d are listed", len(adapted.endpoints), ANNOUNCED)
            self._boot.announce(Announce(listen=self._boot.init.listen, endpoints=endpoints, kind=adapted.kind))

        try:
            serve = self._adapted.serve or asgi.serve
            boot = self._boot
            with reported(boot.limits, self._adapted.holders, boot.channel, boot.init.features):
                self._whole.set_result(await serve(self._adapted, self._listener, ready, self._stop))
        finally:
            self._whole.cancel()

    async def drain(self, grace: float) -> bool:
        if not self._stop.done():
            self._stop.set_result(grace)
        await asyncio.wait({self._whole})
        return self._whole.cancelled() or self._whole.result()

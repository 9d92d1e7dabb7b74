"""StandIn: answers the built-in endpoint of an extension that is opened when it is first asked, and opens it then.

Laws: until then it costs one look for a file, and loads nothing of the extension. What was kept before is taken up without being
asked: the extension is opened at the start where its file is there, and soon after another process made it, for that one may
die. Looking for a file holds no lock: a look that held one, however short, could keep an owner from its own file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from bema.core.call import Call
from bema.core.errors import NotFound
from bema.core.instance import HAND
from bema.core.spec import OnDemand, ServiceSpec
from bema.runtime.tasks import Tasks
from bema.sdk.context import Context

_LOOK: Final = 2.0
"""Seconds between two looks for a file that another process may have made."""

Open = Callable[[ServiceSpec], Awaitable[Callable[[], Awaitable[None]]]]
"""Opens the extension for endpoints that are served already; gives what closes it."""


class StandIn:
    """Of one extension in one service. `begin` it before the service is constructed."""

    def __init__(self, context: Context, said: OnDemand, opens: Open) -> None:
        self._context = context
        self._said = said
        self._opens = opens
        self._closes: Callable[[], Awaitable[None]] | None = None
        self._opening = asyncio.Lock()
        self._tasks = Tasks("extension on demand")

    def begin(self) -> None:
        """Answer its endpoint, and look for its file."""
        host, hosted = self._context.runtime.host, self._context.component.hosted
        host.add_built_in(hosted, self._said.endpoint, self._answer)
        if kept_file(self._context, self._said.extension) is not None:
            self._tasks.start(self._look(), f"look for {self._said.extension}")

    async def close(self) -> None:
        """Open nothing more, and close what was opened."""
        await self._tasks.stop()
        async with self._opening:
            closes, self._closes = self._closes, _nothing
            if closes is not None:
                await closes()

    async def _look(self) -> None:
        hosted = self._context.component.hosted
        while not (hosted.endpoints and is_kept(self._context, self._said.extension)):  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(_LOOK)
        await self._open()

    async def _answer(self, call: Call) -> Any:
        begins = call.arguments.get("operation") == self._said.begins
        if self._closes is None and not begins and not is_kept(self._context, self._said.extension):
            raise NotFound(f"nothing was ever kept of {self._context.spec.address} here")
        await self._open()
        # the extension answers its endpoint itself by now
        _, answer = self._context.component.hosted.built_in[self._said.endpoint.name]
        return await answer(call)  # type: ignore[misc]

    async def _open(self) -> None:
        async with self._opening:
            if self._closes is not None:
                return
            # an entrypoint of the user's own may serve some of them only
            there = self._context.component.hosted.endpoints
            served = tuple(each for each in self._context.spec.endpoints if each.name in there)
            self._closes = await self._opens(msgspec.structs.replace(self._context.spec, endpoints=served))


async def _nothing() -> None:
    """Closes what is closed."""


def kept_name(context: Context, extension: str) -> str:
    """Under which an extension keeps what is this service's; what is deployed, run by hand and developed is kept apart."""
    address, options = context.spec.address, context.runtime.host.options
    if told := context.settings.get(extension):
        return f"{address}@{told['data']}"
    if options.deployment:
        return f"{address}@{options.deployment}"
    return address if options.lane == HAND else f"{address}@{options.lane}"


def kept_file(context: Context, extension: str) -> Path | None:
    """Where an extension keeps that; None where it keeps it in memory, or where nobody told."""
    if context.runtime.forgetful:
        return None
    told = context.settings.get(extension)
    folder = str(Path(context.runtime.settings.text("state_dir")) / extension) if told is None else told.get("folder")
    return Path(folder) / f"{kept_name(context, extension)}.sqlite" if folder else None


def is_kept(context: Context, extension: str) -> bool:
    """Whether something is kept there."""
    file, told = kept_file(context, extension), context.settings.get(extension) or {}
    return bool(told.get("kept")) or (file is not None and file.exists())

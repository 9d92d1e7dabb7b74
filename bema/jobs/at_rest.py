"""Durable calls at rest: those whose owner is not there, looked after in their file.

Law: the file is taken as an owner takes it, so nobody runs a call meanwhile; nothing is run here. What is asked for is written
down, and whoever owns the calls next does it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Container
from pathlib import Path
from typing import Any

from bema.core.call import Call
from bema.core.errors import Conflict, Refused
from bema.core.settings import Settings
from bema.jobs.engine import JobsFactory
from bema.jobs.operations import CallOperations
from bema.jobs.runner import Runner
from bema.jobs.service import kept, settings_of

_NEEDS_OWNER = ("answer", "later")


class CallsAtRest:
    """The operations on the calls of one component that nobody runs."""

    def __init__(self, name: str, runner: Runner) -> None:
        self._name = name
        self._operations = CallOperations(runner)

    async def ask(self, operation: str, arguments: dict[str, Any]) -> Any:
        """As the owner would answer; `Conflict` (bad_move) for what only the service can say, such as the type of an answer."""
        if operation in _NEEDS_OWNER:
            raise Conflict(
                f"{self._name} is not running, and only it can do this", code="bad_move", fix="Start the service."
            )
        return await self._operations(Call(arguments={"operation": operation, "arguments": arguments}))


async def at_rest(
    settings: Settings, opened: contextlib.AsyncExitStack, *, besides: Container[str]
) -> AsyncIterator[tuple[str, CallsAtRest]]:
    """The components with a file that nobody has, without those in `besides`; each is let go when `opened` ends."""
    state, own = Path(settings.text("state_dir")), settings.of(JobsFactory.group)
    by_hand = [path.name.removesuffix(".sqlite") for path in sorted((state / "jobs").glob("*.sqlite"))]
    deployed = kept(settings)
    for name in by_hand + deployed:
        if name in besides:
            continue
        try:
            engine = await JobsFactory.choose().open(settings_of(settings, name) if name in deployed else own, name)
        except Refused as error:
            if error.code == "state_held":  # by an owner that starts or ends just now
                continue
            raise
        runner = Runner(engine)
        opened.push_async_callback(runner.close)
        yield name, CallsAtRest(name, runner)

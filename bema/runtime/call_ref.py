"""CallRef: a durable call that was made and is not waited for, by its id."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from bema.core import durable
from bema.core.errors import BemaError, DeadlineExceeded, Disconnected, Unavailable
from bema.core.instance import Instance
from bema.runtime.rpc.built_in import BuiltIn

_SLACK = 5.0  # seconds in which the answer to a question that waited is here
PATIENCE = 30.0  # seconds that an operation waits for an owner of the calls, and for its answer


class CallRef:
    """`id` stands for the call everywhere: keep it, and make the reference again with `client.ref(id)`."""

    def __init__(
        self, id: str, owner: CallOwner, decode: Callable[[bytes], Any], failed: Callable[[bytes], BaseException]
    ) -> None:
        self.id = id
        self._failed = failed
        self._owner = owner
        self._decode = decode

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end: its result, or its failure raised. `DeadlineExceeded` after `timeout` seconds; the call goes on.

        `Conflict` (call_paused, call_cancelled) where a person has to look, or has ended it.
        """
        until = None if timeout is None else monotonic() + timeout
        while True:
            left = PATIENCE if until is None else min(PATIENCE, until - monotonic())
            if left <= 0:
                raise DeadlineExceeded(f"call {self.id} did not end within {timeout:g} s; it goes on")
            try:
                found = await self._owner.ask("outcome", left + _SLACK, id=self.id, patience=left)
            except DeadlineExceeded:
                continue  # its owner changed: the call's own failure comes as data, whatever it is
            if (payload := found["payload"]) is None:
                continue  # it takes longer than one question
            if found["call"]["state"] == "failed":
                raise self._failed(payload)
            return self._decode(payload)

    async def status(self) -> dict[str, Any]:
        """The state of the call, and what it waits for; `NotFound` for one that is kept no longer."""
        found: dict[str, Any] = await self._owner.ask("show", PATIENCE, id=self.id)
        return found

    async def cancel(self) -> None:
        """Ask for its end."""
        await self._owner.ask("cancel", PATIENCE, id=self.id)

    async def answer(self, value: Any) -> None:
        """Answer what it asks. `Invalid` for a value of another type."""
        await self._owner.ask("answer", PATIENCE, id=self.id, value=value)

    async def signal(self, name: str, value: Any = None) -> None:
        """Give it a signal, which is kept until it waits for it."""
        await self._owner.ask("signal", PATIENCE, id=self.id, name=name, value=value)

    def __repr__(self) -> str:
        return f"<durable call {self.id}>"


class CallOwner:
    """Whoever has the durable calls of a component now, asked again where that changes."""

    def __init__(self, built_in: BuiltIn, instances: Callable[[], Awaitable[tuple[Instance, ...]]]) -> None:
        self._built_in = built_in
        self._instances = instances

    async def ask(self, operation: str, timeout: float, **arguments: Any) -> Any:
        """The owner's answer within `timeout` seconds. Every operation may be asked twice, so a lost one is asked again."""
        until = monotonic() + timeout
        while True:
            error: BemaError = Unavailable("nobody has the durable calls now")
            for instance in await self._instances():
                asked = {"operation": operation, "arguments": arguments}
                try:
                    return await self._built_in.ask(instance, durable.ENDPOINT, asked, max(0.01, until - monotonic()))
                except (Unavailable, Disconnected) as lost:
                    error = lost
            if monotonic() >= until:
                raise error
            await asyncio.sleep(0.1)

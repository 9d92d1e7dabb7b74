"""DurableCalls: the durable calls of deployments, as every door to them needs them: made, waited for, followed, cancelled.

Laws: a call is made under an id of its maker's, so that a request that was lost is asked again and makes one call. Whoever owns
the calls of a deployment is looked for at each question. Values of steps stay with the owner, and so does who asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from time import time_ns
from typing import Any, NamedTuple

from bema.core.errors import BemaError, DeadlineExceeded, NotFound, Unavailable
from bema.core.instance import EndpointInfo, Instance
from bema.core.naming import is_call_id, new_call_id
from bema.runtime.call_ref import CallOwner
from bema.runtime.discovery.discovery import View, wait_for
from bema.runtime.rpc.built_in import BuiltIn
from bema.runtime.rpc.pool import ConnectionPool
from bema.wire.rpc import failures
from bema.wire.values import codecs

__all__ = ["CallChange", "CallOutcome", "CallPosition", "DurableCalls"]

_PATIENCE = 30.0  # seconds that a question waits for an owner, and for its answer
_ROUND = 15.0  # seconds until who waits is told that nothing happened
_SHOWN = ("id", "state", "created", "due", "attempts", "version", "key", "cancelling", "code", "why", "ended", "waits")

_encode = codecs.arguments_encoder(None)


class CallPosition(NamedTuple):
    """How far a follower has come: the last step that it was told, and the mark of the state. As text, `3-2-running`."""

    after: int = 0
    seen: str = ""

    @classmethod
    def read(cls, text: str) -> CallPosition:
        """The position of a text; the beginning for one that is none."""
        after, _, seen = text.partition("-")
        return cls(int(after), seen[:40]) if after.isdecimal() and after.isascii() and len(after) < 10 else cls()

    def __str__(self) -> str:
        return f"{self.after}-{self.seen}"


class CallOutcome(NamedTuple):
    """The result of a call, or its failure: apart from errors of asking for it."""

    value: Any = None
    failure: BaseException | None = None


class CallChange(NamedTuple):
    """What happened: a `step`, another `state`, or steps that were forgotten and are done anew (`restarted`)."""

    kind: str
    at: CallPosition
    data: dict[str, Any]


class DurableCalls:
    """Each method names a deployment by its id. `NotFound` for a call that it has not, `Unavailable` where nobody has its calls."""

    def __init__(self, pool: ConnectionPool, instances_of: Callable[[str], View]) -> None:
        self._built_in = BuiltIn(pool)
        self._instances_of = instances_of

    async def endpoint(self, deployment: str, name: str) -> EndpointInfo:
        """The durable endpoint of that name, as the owner of the calls shows it; waits for an owner."""

        def found(instances: tuple[Instance, ...]) -> EndpointInfo | None:
            shown = (info for instance in instances for info in instance.endpoints)
            return next((info for info in shown if info.name == name and info.durable), None)

        view = self._instances_of(deployment)
        try:
            async with asyncio.timeout(_PATIENCE):
                info = found(await wait_for(view, lambda instances: found(instances) is not None))
        except TimeoutError:
            raise _no_owner() from None
        assert info is not None
        return info

    async def begin(
        self, deployment: str, route: str, arguments: dict[str, Any], *, key: str = "", metadata: dict[str, str]
    ) -> str:
        """Have a call made; its id, or that of the call with the same key. It is written down when this returns.

        `Invalid` for arguments that do not fit; `Conflict` (call_exists) where the key is that of a call with others.
        """
        try:
            payload = _encode(arguments)
        except codecs.UNFIT as error:
            raise codecs.refusal(error, f"the arguments of {route}", arguments) from error
        id = new_call_id(time_ns() // 1000)
        said: dict[str, Any] = {"route": route, "arguments": payload, "key": key, "metadata": metadata}
        kept: str = await self._ask(deployment, "later", id=id, **said)
        return kept

    async def status(self, deployment: str, id: str) -> dict[str, Any]:
        """Where a call is, without its arguments and values."""
        return _shown((await self._ask(deployment, "changes", id=_checked(id)))["call"])

    async def outcome(self, deployment: str, id: str, *, waits: bool = True) -> CallOutcome | None:
        """How a call ended. It `waits` for the end, or looks once and gives None where it goes on.

        `Conflict` where it is paused (call_paused) or was cancelled (call_cancelled).
        """
        while True:
            try:
                found = await self._ask(deployment, "outcome", _ROUND if waits else 0.0, id=_checked(id))
            except DeadlineExceeded:  # the owner changed meanwhile: a failure of the call itself would be data
                if waits:
                    continue
                raise
            if (payload := found["payload"]) is None:
                if waits:
                    continue
                return None
            if found["call"]["state"] == "failed":
                return CallOutcome(failure=failures.rebuild(failures.read_failure(payload), {}))
            return CallOutcome(codecs.unpack(payload))

    async def follow(self, deployment: str, id: str, position: CallPosition) -> AsyncGenerator[CallChange | None, None]:
        """What happened since `position`, and what happens until the end; None where nothing happened for a while."""
        while True:
            after, seen = position
            try:
                found = await self._ask(deployment, "changes", _ROUND, id=_checked(id), after=after, seen=seen)
            except DeadlineExceeded:
                yield None
                continue
            if found["restarted"]:
                position = position._replace(after=found["last"])
                yield CallChange("restarted", position, {"after": found["last"]})
            for step in found["steps"]:
                position = position._replace(after=step["order"])
                yield CallChange("step", position, step)
            if found["mark"] != position.seen:
                position = position._replace(seen=found["mark"])
                yield CallChange("state", position, _shown(found["call"]))
            elif not (found["steps"] or found["restarted"] or found["ended"]):
                yield None
            if found["ended"]:
                return

    async def cancel(self, deployment: str, id: str) -> dict[str, Any]:
        """Ask for the end of a call; where it is then. One that has ended stays what it is."""
        return _shown(await self._ask(deployment, "cancel", id=_checked(id)))

    async def _ask(self, deployment: str, operation: str, patience: float = 0.0, **arguments: Any) -> Any:
        async def owners() -> tuple[Instance, ...]:
            return _owners(self._instances_of(deployment))

        owner = CallOwner(self._built_in, owners)
        waiting = {"patience": patience} if patience else {}
        try:
            return await owner.ask(operation, _PATIENCE + patience, **arguments, **waiting)
        except Unavailable as error:
            raise _no_owner() from error


def _owners(view: View) -> tuple[Instance, ...]:
    there = view.instances()
    # where nobody has calls yet, each can begin that answers what may be called later
    having = [instance for instance in there if instance.data.get("jobs")] or [
        instance for instance in there if any(info.later for info in instance.endpoints)
    ]
    # one that hangs or drains is asked where there is no other: it may still answer
    return tuple(sorted(having, key=lambda instance: not instance.routable()))


def _no_owner() -> BemaError:
    error = Unavailable("no process has the durable calls of this deployment now")
    error.retry_after = 1
    return error


def _checked(id: str) -> str:
    # not a bad argument: to who asks by its address there is nothing
    if not is_call_id(id):
        raise NotFound(f"there is no call {id[:80]!r}")
    return id


def _shown(call: dict[str, Any]) -> dict[str, Any]:
    """What a door tells of a record: not who asked, nor what only its owner needs."""
    return {"endpoint": call["route"].rpartition(".")[2], **{name: call[name] for name in _SHOWN if name in call}}

"""Operations on durable calls, as their owner answers them and the command line asks for them: plain data in and out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec

from bema.core.call import Call, Unary
from bema.core.durable import Retry
from bema.core.errors import BadDeclaration, Disconnected, Invalid
from bema.core.naming import is_call_id, new_call_id
from bema.jobs.admission import group_of
from bema.jobs.calls import CallRecord, DurableState
from bema.jobs.journal import JournalEntry
from bema.jobs.runner import Runner
from bema.jobs.worker import DurableEndpoint
from bema.runtime.alarms import AlarmClock
from bema.runtime.tasks import before
from bema.wire.rpc import failures
from bema.wire.values import codecs

_SHOWN: Final = 100
_HISTORY: Final = 4 * 1024 * 1024  # bytes of entries in one answer, or one entry that is larger
_CHANGES: Final = 1000  # entries of a journal in one answer
_WAITS: Final = frozenset({"outcome", "changes"})


class CallDoor(Protocol):
    """Where callers hand in durable calls: the owner of the calls, or a member of those who run them."""

    clock: AlarmClock

    async def submit(self, record: CallRecord, arguments: bytes) -> CallRecord:
        """Keep a call; the one that was there where it is asked for again."""

    def endpoint(self, route: str) -> DurableEndpoint:
        """The endpoint of a route; `NotFound`."""


def until_stopping(stopping: asyncio.Event, operations: Unary) -> Unary:
    """The same operations, of which those that wait raise `Disconnected` once it stops: who asked goes on with the next owner."""

    async def answer(call: Call) -> Any:
        asked = operations(call)
        if call.arguments.get("operation") not in _WAITS:
            return await asked
        return await before(
            stopping, asked, lambda: Disconnected("who has these calls stops; they go on with the next")
        )

    return answer


class CallerOperations:
    """What needs the types of an endpoint. Operations take their arguments by name; a bad one is `Invalid`."""

    def __init__(self, door: CallDoor) -> None:
        self._door = door
        self._operations: dict[str, Callable[..., Awaitable[Any]]] = {"later": self.later}

    def has(self, operation: str) -> bool:
        """Whether there is an operation of that name."""
        return operation in self._operations

    async def __call__(self, call: Call) -> Any:
        """The handler of the built-in endpoint."""
        name, arguments = call.arguments["operation"], call.arguments.get("arguments", {})
        if (operation := self._operations.get(name)) is None:
            raise Invalid(f"there is no operation {name!r} on durable calls")
        try:
            return await operation(**arguments)
        except TypeError as error:
            # raised by the call itself, and not from within the operation
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                raise Invalid(f"the operation {name} does not take these arguments: {error}") from error
            raise

    async def later(
        self,
        route: str,
        arguments: bytes,
        delay: float = 0.0,
        key: str = "",
        group: str = "",
        priority: int = 0,
        id: str = "",
        metadata: dict[str, str] | None = None,
        retry: dict[str, Any] | None = None,
    ) -> str:
        """Keep a call that is made after `delay` seconds; its id, or that of the call with the same key.

        `retry` is of the one step that the call of an endpoint is which is not durable. `Invalid` for others: their steps say theirs.
        """
        endpoint = self._door.endpoint(route)
        if endpoint.spec.durable and retry is not None:
            raise Invalid(
                f"{route} is durable: each of its steps says how it is tried again",
                fix="Write call.step(..., retry=Retry(...)) in its handler, and leave retry= of `later` away.",
            )
        try:
            decoded = endpoint.decode_arguments(arguments)
            # written as the owner writes them: the same arguments in another order are the same call
            arguments = endpoint.encode_arguments(decoded)
        except codecs.UNFIT as error:
            raise codecs.refusal(error, f"the arguments of {route}") from error
        now = self._door.clock.now()
        record = CallRecord(
            id=_id(id) if id else new_call_id(now),
            route=route,
            created=now,
            due=now + round(delay * 1_000_000) if delay > 0 else 0,
            key=_text("key", key),
            group=_text("group", group) or group_of(endpoint.spec, decoded),
            priority=priority,
            metadata=metadata or {},
            retry=None if endpoint.spec.durable else _retry(retry),
        )
        return (await self._door.submit(record, arguments)).id


class CallOperations(CallerOperations):
    """All of them, as the owner of the calls answers them. An unknown call is `NotFound`."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        self._runner = runner
        self._operations |= {
            "list": self.list,
            "show": self.show,
            "outcome": self.outcome,
            "changes": self.changes,
            "history": self.history,
            "cancel": self.cancel,
            "resume": self.resume,
            "restart": self.restart,
            "answer": self.answer,
            "signal": self.signal,
            "schedules": runner.schedules.listed,
            "pause_schedule": runner.schedules.pause,
            "resume_schedule": runner.schedules.resume,
            "run_schedule": runner.schedules.run,
        }

    async def list(self, count: int = _SHOWN, state: str = "", before: str = "") -> dict[str, Any]:
        """The newest calls, those that have not ended among them."""
        engine = self._runner.engine
        live = sorted(engine.live().values(), key=lambda record: record.id, reverse=True)
        shown = [record for record in live if state in ("", record.state) and (not before or record.id < before)][
            :count
        ]
        if len(shown) < count:
            ended = await engine.recent(count, before)
            shown += [record for record in ended if state in ("", record.state)][: count - len(shown)]
        shown.sort(key=lambda record: record.id, reverse=True)
        return {"calls": [_data(record) for record in shown], "live": len(live)}

    async def show(self, id: str) -> dict[str, Any]:
        """A call with its arguments, its steps and its end."""
        engine = self._runner.engine
        record = await engine.get(_id(id))
        journal = await engine.journal(id)
        steps = [
            {
                "order": entry.order,
                "what": entry.shown,
                "at": entry.at,
                "tries": entry.tries,
                **({"error": _failed(entry.failure)} if entry.failure else {"result": _plain(entry.value)}),
            }
            for entry in journal.entries
        ]
        found = {**_data(record), "arguments": _plain(await engine.arguments(id)), "steps": steps}
        if record.state == "done":
            found["result"] = _plain(await engine.outcome(id))
        return found

    async def outcome(self, id: str, patience: float = 0.0) -> dict[str, Any]:
        """The call, and its encoded result or failure as `payload`; that is None while it runs on after `patience` seconds.

        `Conflict` where it is paused (call_paused) or was cancelled (call_cancelled).
        """
        record = await self._runner.engine.get(_id(id))
        going = not record.state.ended and record.state is not DurableState.PAUSED
        if going and patience <= 0:
            return {"call": _data(record), "payload": None}
        # not a timeout around it: what it raises is about the call, and its own failure is data here
        found = asyncio.ensure_future(self._runner.outcome(id))
        try:
            await asyncio.wait({found}, timeout=patience if going else None)
            if not found.done():
                return {"call": _data(await self._runner.engine.get(id)), "payload": None}
            record, payload = found.result()
            return {"call": _data(record), "payload": payload}
        finally:
            found.cancel()

    async def changes(self, id: str, after: int = 0, seen: str = "", patience: float = 0.0) -> dict[str, Any]:
        """What happened to a call since its step `after`: steps without their values, the call, and a `mark` of its state.

        It waits for a step, or for another mark than `seen`, for at most `patience` seconds; of what has ended, not at all.
        `last` is the step to go on behind. `restarted`: some up to `after` were forgotten, and are done anew behind `last`.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        with self._runner.engine.watching(_id(id)) as written:
            while True:
                written.clear()
                found = await self._since(id, after)
                left = until - loop.time()
                if found["steps"] or found["restarted"] or found["mark"] != seen or found["ended"] or left <= 0:
                    return found
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await written.wait()

    async def _since(self, id: str, after: int) -> dict[str, Any]:
        # the record first: what is then found in the journal is not older than its state
        record = await self._runner.engine.get(id)
        entries = (await self._runner.engine.journal(id, max(after - 1, 0))).entries
        restarted = after > 0 and (not entries or entries[0].order != after)
        if restarted:
            entries = (await self._runner.engine.journal(id)).entries
            after = entries[-1].order if entries else 0
        steps = [_step(entry) for entry in entries if entry.order > after]
        return {
            "steps": steps[:_CHANGES],
            "last": steps[:_CHANGES][-1]["order"] if steps else after,
            "restarted": restarted,
            "mark": f"{record.attempts}-{record.state.value}",
            "ended": record.state.ended and len(steps) <= _CHANGES,
            "call": _data(record),
        }

    async def history(self, id: str, after: int = 0) -> dict[str, Any]:
        """A call as it is kept, for who runs it again: record and entries as msgpack, payloads as they were encoded.

        Entries come behind that of the order `after`; `more` says that there are some behind `last`.
        """
        engine = self._runner.engine
        record = await engine.get(_id(id))
        entries: list[bytes] = []
        size, last = 0, after
        known = (await engine.journal(id, after)).entries
        for entry in known:
            packed = msgspec.msgpack.encode(entry)
            if entries and size + len(packed) > _HISTORY:
                break
            entries.append(packed)
            size, last = size + len(packed), entry.order
        return {
            "record": msgspec.msgpack.encode(record),
            "arguments": await engine.arguments(id),
            "payload": await engine.outcome(id) if record.state.ended else None,
            "entries": entries,
            "last": last,
            "more": len(entries) < len(known),
        }

    async def cancel(self, id: str) -> dict[str, Any]:
        return _data(await self._runner.cancel(_id(id)))

    async def resume(self, id: str) -> dict[str, Any]:
        return _data(await self._runner.resume(_id(id)))

    async def restart(self, id: str, order: int = 1) -> dict[str, Any]:
        return _data(await self._runner.restart(_id(id), order))

    async def answer(self, id: str, value: Any, place: str = "") -> None:
        await self._runner.answer(_id(id), codecs.pack(value), place=place)

    async def signal(self, id: str, name: str, value: Any = None) -> None:
        await self._runner.signal(_id(id), _text("name", name), codecs.pack(value))


def _step(entry: JournalEntry) -> dict[str, Any]:
    return {
        "order": entry.order,
        "what": entry.shown,
        "kind": entry.kind,
        "name": entry.name,
        "at": entry.at,
        "tries": entry.tries,
        **({"error": _failed(entry.failure)} if entry.failure else {}),
    }


def _data(record: CallRecord) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(record))
    return {"state": record.state.value, **{name: value for name, value in found.items() if name != "metadata"}}


def _plain(payload: bytes) -> Any:
    return codecs.unpack(payload) if payload else None


def _failed(payload: bytes) -> str:
    failure = failures.read_failure(payload)
    return f"{failure.type or failure.code}: {failure.message}"


def _id(text: str) -> str:
    if not isinstance(text, str) or not is_call_id(text):
        raise Invalid(f"{text!r} is not the id of a call", code="bad_name")
    return text


def _retry(said: dict[str, Any] | None) -> Retry:
    try:
        return Retry() if said is None else msgspec.convert(said, Retry)
    except (msgspec.ValidationError, BadDeclaration) as error:
        raise Invalid(f"{said!r} is no Retry: {error}") from error


def _text(what: str, text: str) -> str:
    if not isinstance(text, str) or len(text) > 200 or "\0" in text:
        raise Invalid(f"the {what} of a call is a text of at most 200 characters, not {text!r}")
    return text

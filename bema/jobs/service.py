"""The service `jobs`: the durable calls of what is deployed, owned by one process of the platform and run by many.

Laws: it has no handlers; the instances of a deployment join it and are given calls to run. Each component of a deployment has a
file beside the data of that deployment, which outlives its versions. A session that is not heard of for the lease is over: what it
ran goes on with another. The service may be killed at any moment: what it answered is written, and the next one goes on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bema.core.call import Call
from bema.core.durable import Queue
from bema.core.errors import BemaError, Disconnected, Invalid, NotFound, Refused
from bema.core.naming import component_of, is_uuid
from bema.core.settings import PartSettings, Settings
from bema.jobs.assignments import Joined, Task
from bema.jobs.calls import CallRecord, CallWait, DurableState
from bema.jobs.engine import JobsFactory
from bema.jobs.journal import JournalEntry
from bema.jobs.operations import CallOperations, until_stopping
from bema.jobs.runner import Runner
from bema.jobs.schedule import Schedule
from bema.jobs.session import WorkerSession
from bema.runtime.tasks import Tasks, before
from bema.sdk.context import Context
from bema.sdk.decorators import async_init, endpoint, on_shutdown, service
from bema.wire.rpc import failures

logger = logging.getLogger("bema.jobs")


@service(name="jobs", namespace="bema")
class Jobs:
    """`name` is that of a file: the component, an @, and the id of the data of its deployment."""

    def __init__(self, context: Context) -> None:
        self._settings = context.runtime.settings
        self._stop = context.runtime.stop
        self._stopping = context.runtime.stopping
        self._runners: dict[str, Runner] = {}
        self._on_disk: set[str] = set()  # the names that have a file
        self._opening: dict[str, asyncio.Lock] = {}
        self._sessions: dict[int, WorkerSession] = {}
        self._tasks = Tasks("jobs")

    @async_init
    async def open(self) -> None:
        """Take what is there: calls that slept while nobody was here may be due."""
        for name in kept(self._settings):
            try:
                await self._runner(name)
            except BemaError as error:
                # of a newer bema, or on a disk that fails: those of the others go on, and who asks for these is told
                logger.error("the durable calls of %s cannot be opened: %s", name, error.message)
        self._tasks.start(self._dismiss(), "end of the sessions")

    async def _dismiss(self) -> None:
        """A stream that has no end of its own would be cut after the grace."""
        await self._stopping.wait()
        for session in self._sessions.values():
            session.tasks.put_nowait(None)

    @on_shutdown
    async def close(self) -> None:
        await self._tasks.stop()
        for session in tuple(self._sessions.values()):
            session.lose()
        for runner in self._runners.values():
            await runner.close()

    async def _runner(self, name: str) -> Runner:
        async with self._opening.setdefault(name, asyncio.Lock()):
            await self._let_go_if_purged(name)
            if name not in self._runners:
                engine = await JobsFactory.choose().open(settings_of(self._settings, name), name)
                runner = self._runners[name] = Runner(engine)
                runner.failed = lambda error: self._stop()
                runner.begin()
                if file_of(self._settings, name).exists():  # not so with an engine that keeps nothing
                    self._on_disk.add(name)
            return self._runners[name]

    # workers

    @endpoint
    async def work(
        self,
        name: str,
        version: str,
        routes: list[str],
        queues: dict[str, Queue] | None = None,
        schedules: list[Schedule] | None = None,
    ) -> AsyncIterator[Task]:
        """Join as a worker of these routes; what it is told to do, until it leaves. Who joined last says what the clock calls."""
        runner = await self._runner(name)
        lease = self._settings.limits.jobs_lease
        # random: a worker that was asleep must not renew a stranger's session, nor one of the next process
        session = WorkerSession(secrets.randbits(60), version, routes, lease, queues or {})
        self._sessions[session.number] = session
        runner.join(session)
        runner.schedules.declare(schedules or [], session)
        watching = self._tasks.start(self._watch(session, runner), f"lease of worker {session.number}")
        try:
            yield Joined(session=session.number, lease=lease)
            while (task := await session.tasks.get()) is not None:
                yield task
        finally:
            watching.cancel()
            self._leave(session, runner)

    async def _watch(self, session: WorkerSession, runner: Runner) -> None:
        # a task of its own: a stream whose reader is stopped stands still, and tells nothing
        while (left := session.left()) > 0:  # noqa: ASYNC110 - it is renewed meanwhile
            await asyncio.sleep(left)
        self._leave(session, runner)

    def _leave(self, session: WorkerSession, runner: Runner) -> None:
        if self._sessions.pop(session.number, None) is not None:
            runner.leave(session)
            runner.schedules.retract(session)
            session.lose()
            session.tasks.put_nowait(None)

    @endpoint(idempotent=True)
    async def renew(self, session: int) -> None:
        """The worker lives; `NotFound` where its session is over."""
        self._session(session).renew()

    @endpoint
    async def complete(
        self, name: str, id: str, fence: int, entry: JournalEntry, session: int, signal: str = "", number: int = 0
    ) -> None:
        """Write an entry under a claim; `signal` and `number` are of what was offered and taken. `StaleClaim`."""
        worker = self._session(session)
        worker.renew()
        runner, offer = self._owned(name), worker.offered(number)

        async def complete() -> None:
            await runner.engine.complete(id, fence, entry, signal)
            if offer is not None:  # its worker may be lost by now, and knows of no offers any more
                offer.take()

        await runner.hand_in(id, complete())

    @endpoint
    async def suspend(
        self,
        name: str,
        record: CallRecord,
        state: DurableState,
        waits: list[CallWait] | None = None,
        due: int = 0,
        code: str = "",
        why: str = "",
    ) -> None:
        """Let go of a claim. `StaleClaim`."""
        kept_waits = None if waits is None else tuple(waits)
        runner = self._owned(name)
        suspending = runner.suspend(record, state, waits=kept_waits, due=due, code=code, why=why)
        await runner.hand_in(record.id, suspending)

    @endpoint
    async def end(
        self, name: str, record: CallRecord, state: DurableState, payload: bytes, code: str = "", why: str = ""
    ) -> None:
        """Write the end of a call under its claim. `StaleClaim`."""
        runner = self._owned(name)
        await runner.hand_in(record.id, runner.end(record, state, payload, code, why))

    @endpoint(idempotent=True)
    async def over(self, session: int, id: str, seen: list[int], failure: bytes = b"") -> None:
        """A run is over; `failure` says why it broke off. `seen` are offers that it did not wait for."""
        error = failures.rebuild(failures.read_failure(failure), {}) if failure else None
        self._session(session).over(id, seen, error)

    @endpoint(idempotent=True)
    async def refuse(self, session: int, number: int, failure: bytes) -> None:
        """What was offered under that number does not fit; `failure` is for who offered it."""
        error = failures.rebuild(failures.read_failure(failure), {})
        self._session(session).refused(number, error if isinstance(error, BemaError) else Invalid(str(error)))

    def _session(self, number: int) -> WorkerSession:
        if (session := self._sessions.get(number)) is None:
            raise NotFound(f"the session {number} is over")
        return session

    # callers

    @endpoint(idempotent=True)
    async def submit(self, name: str, record: CallRecord, arguments: bytes) -> CallRecord:
        """Keep a call; the one that was there where it is asked for again."""
        return await (await self._runner(name)).submit(record, arguments)

    @endpoint(idempotent=True)
    async def outcome(self, name: str, id: str) -> tuple[CallRecord, bytes]:
        """Wait for the end of a call: its record, and the encoded result or failure."""
        return await before(self._stopping, self._owned(name).outcome(id), lambda: _stops(id))

    @endpoint(idempotent=True)
    async def names(self) -> list[str]:
        """The names whose calls are here. What was purged with the data of its deployment is let go of."""
        for name in tuple(self._runners):
            await self._let_go_if_purged(name)
        return sorted(self._runners)

    @endpoint(idempotent=True)
    async def live_versions(self, data: list[str]) -> dict[str, dict[str, bool]]:
        """The versions whose calls have not ended, by the id of a deployment's data; true where one of them is not paused."""
        found: dict[str, dict[str, bool]] = {}
        for name, runner in tuple(self._runners.items()):
            if (mine := name.partition("@")[2]) not in data:
                continue
            versions = found.setdefault(mine, {})
            for number, record in enumerate(tuple(runner.engine.live().values()), 1):
                if record.version:  # without one, any may take it
                    going = record.state is not DurableState.PAUSED
                    versions[record.version] = versions.get(record.version, False) or going
                if number % 10_000 == 0:  # others have their turn too
                    await asyncio.sleep(0)
        return found

    async def _let_go_if_purged(self, name: str) -> None:
        if name in self._on_disk and not file_of(self._settings, name).exists():
            self._on_disk.discard(name)
            await self._runners.pop(name).close()

    @endpoint
    async def operate(self, name: str, operation: str, arguments: dict[str, Any]) -> Any:
        """An operation on the calls of a name, such as `list` or `cancel`."""
        operations = until_stopping(self._stopping, CallOperations(self._owned(name)))
        return await operations(Call(arguments={"operation": operation, "arguments": arguments}))

    def _owned(self, name: str) -> Runner:
        if (runner := self._runners.get(name)) is None:
            raise NotFound(f"there are no durable calls of {name} here")
        return runner


def _stops(id: str) -> BemaError:
    return Disconnected(f"the service of durable calls stops; call {id} goes on with the next")


def settings_of(settings: Settings, name: str) -> PartSettings:
    """Those that the calls of a name are opened with: their file lies with the data of its deployment."""
    component, _, data = name.partition("@")
    if component_of(component) is None or not is_uuid(data):
        raise Invalid(f"{name!r} is not the name of a deployment's calls", code="bad_name")
    own = settings.of(JobsFactory.group)
    return PartSettings(dict(own), own.limits, own.state / "homes" / data)


def file_of(settings: Settings, name: str) -> Path:
    """Where the calls of a name are kept by an engine that keeps them in a file."""
    return settings_of(settings, name).state / "jobs" / f"{name}.sqlite"


def kept(settings: Settings) -> list[str]:
    """The names that have a file."""
    state = Path(settings.text("state_dir"))
    return sorted(path.name.removesuffix(".sqlite") for path in state.glob("homes/*/jobs/*@*.sqlite"))


async def unfinished(settings: Settings) -> bool:
    """Whether some call is not finished, or the clock makes calls; nothing may own the files meanwhile. What cannot be read counts."""
    for name in kept(settings):
        try:
            engine = await JobsFactory.choose().open(settings_of(settings, name), name)
        except Refused:
            return True
        try:
            if engine.live() or await engine.schedules():
                return True
        finally:
            await engine.close()
    return False

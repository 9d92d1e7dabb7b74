"""Members of a simulated platform: the shipped service and memberships, and between them a wire that fails as a seed says.

A connection may break, which each side learns at once, or fall silent: what is sent then comes late, and all of it, as from a process
that was stopped. Laws: what breaks between a question and its answer was done, or was not; who serves a connection that broke is
cancelled, as by `runtime.rpc`; an error travels as its code.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from bema.core.errors import BemaError, Disconnected
from bema.core.limits import Limits
from bema.jobs.assignments import Task
from bema.jobs.membership import Membership
from bema.jobs.runner import Runner
from bema.jobs.service import Jobs
from bema.jobs.worker import DurableEndpoint
from bema.runtime.alarms import AlarmClock
from bema.sdk.context import Context
from bema.wire.rpc import failures

NAME = "t.t@11111111-2222-3333-4444-555555555555"


def service_of(runner: Runner) -> Jobs:
    """The service of the platform as it is once it has opened the calls of `NAME`."""
    settings = SimpleNamespace(limits=runner.engine.limits)
    runtime = SimpleNamespace(settings=settings, stop=lambda: None, stopping=asyncio.Event())
    jobs = Jobs(cast("Context", SimpleNamespace(runtime=runtime)))
    jobs._runners[NAME] = runner
    return jobs


class Wire:
    """What a member has of the service.

    `breaks` is how often it breaks while a question is answered; `silent_until` is an instant of its loop, before which nothing
    arrives on either side.
    """

    def __init__(self, jobs: Jobs, chance: random.Random, breaks: int) -> None:
        self._jobs = jobs
        self._chance = chance
        self._breaks = breaks
        self._slow = chance.choice([0.0, 0.001, 0.05])
        self._connection = 0
        self._serving: list[asyncio.Future[Any]] = []
        self._dead = False
        self.silent_until = 0.0

    def cut(self) -> None:
        """The connection breaks; the next question makes another."""
        self._connection += 1
        serving, self._serving = self._serving, []
        for one in serving:
            one.cancel()

    def die(self) -> None:
        """Its process is gone: nothing more is heard of it."""
        self.cut()
        self._dead = True

    async def _travel(self) -> None:
        connection, loop = self._connection, asyncio.get_running_loop()
        await asyncio.sleep(max(self.silent_until - loop.time(), 0.0) + self._slow * self._chance.random())
        if connection != self._connection or self._dead:
            raise Disconnected("the connection was lost")

    async def _ask(self, endpoint: str, *arguments: Any) -> Any:
        await self._travel()
        serving = asyncio.ensure_future(getattr(self._jobs, endpoint)(*arguments))
        self._serving.append(serving)
        if self._breaks and self._chance.random() < 0.2:
            self._breaks -= 1
            soon = self._chance.choice([0.0, 0.01, 0.3]) * self._chance.random()
            asyncio.get_running_loop().call_later(soon, self.cut)
        try:
            await asyncio.wait({serving})
        finally:
            serving.cancel()
            if serving in self._serving:
                self._serving.remove(serving)
        if serving.cancelled():
            raise Disconnected("the connection was lost")
        await self._travel()
        try:
            return serving.result()
        except BemaError as error:
            raise failures.rebuild(failures.read_failure(failures.pack_failure(error)), {}) from None

    def __getattr__(self, endpoint: str) -> Callable[..., Any]:
        async def ask(*arguments: Any) -> Any:
            return await self._ask(endpoint, *arguments)

        return ask

    async def work(self, *arguments: Any) -> AsyncIterator[Task]:
        """The stream of a member: served by a task of its own, which is ahead of who reads."""
        await self._travel()
        sent: asyncio.Queue[Task | None] = asyncio.Queue()

        async def serve() -> None:
            try:
                async with contextlib.aclosing(cast("Any", self._jobs.work(*arguments))) as tasks:
                    async for task in tasks:
                        sent.put_nowait(task)
            finally:
                sent.put_nowait(None)

        serving = asyncio.ensure_future(serve())
        self._serving.append(serving)
        try:
            while (task := await sent.get()) is not None:
                await self._travel()
                yield task
        finally:
            serving.cancel()
        if serving.done() and serving.cancelled():
            raise Disconnected("the connection was lost")


class Member(Membership):
    """One instance, which asks over a wire."""

    def __init__(self, wire: Wire, limits: Limits, clock: AlarmClock) -> None:
        super().__init__("memory:nowhere", "", NAME, "v1", limits)
        self.wire = wire
        self._jobs = cast("Any", wire)
        self.clock = clock


class Crew:
    """Members of one service: unless they are `steady`, they are lost, fall silent, lose their connection, and come again."""

    def __init__(
        self,
        jobs: Jobs,
        clock: AlarmClock,
        chance: random.Random,
        made: Callable[[Callable[[], Callable[[], bool]]], Mapping[str, DurableEndpoint]],
        *,
        mishaps: int,
    ) -> None:
        self._jobs = jobs
        self._clock = clock
        self._chance = chance
        # the endpoints of a member. What it passes gives, for a run that begins, whether its session holds: one whose session is
        # over goes on for a while, and nothing of it counts
        self._made = made
        self._mishaps = mishaps
        self._members: list[Member] = []

    def begin(self, count: int) -> None:
        for _ in range(count):
            self._join()

    def _join(self) -> None:
        wire = Wire(self._jobs, self._chance, self._mishaps)
        member = Member(wire, self._jobs._settings.limits, self._clock)

        def holding() -> Callable[[], bool]:
            session = member._session
            return lambda: session in self._jobs._sessions

        member.endpoints.update(self._made(holding))
        self._members.append(member)
        member.begin()

    async def suffer(self) -> None:
        """What befalls them, one after the other."""
        lease = self._jobs._settings.limits.jobs_lease
        for _ in range(self._mishaps):
            await asyncio.sleep(self._chance.choice([0.01, 1.0, 60.0, lease]) * self._chance.random())
            member = self._chance.choice(self._members)
            match self._chance.choice(["cut", "silent", "dies", "leaves"]):
                case "cut":
                    member.wire.cut()
                case "silent":
                    silence = self._chance.choice([1.0, lease, 3 * lease]) * self._chance.random()
                    member.wire.silent_until = asyncio.get_running_loop().time() + silence
                case how:
                    self._members.remove(member)
                    if how == "dies":
                        member.wire.die()
                    await member.close()
                    self._join()

    async def close(self) -> None:
        for member in self._members:
            await member.close()
        await self._jobs.close()

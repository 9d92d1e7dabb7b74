"""System: several services in one process, for tests, without sockets, files or other processes.

Laws: each service boots by the same start() as in production and has its own runtime; they find each other in one
`MemoryDiscovery` and call each other through memory. They start together, so that one may call another while it starts,
and end one by one, the last named first. Durable calls are kept in memory, each instance's apart, and their clock can be
advanced: what is due meanwhile is done in its order, each at its time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from bema.core.errors import DeadlineExceeded
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.distributed import DistributedRuntime, Endpoint
from bema.runtime.process.host import LaunchOptions
from bema.sdk import lifecycle, spec
from bema.testing.virtual_clock import VirtualClock

T = TypeVar("T")

_numbers = itertools.count(1)
_QUIET = 100  # turns of the loop: a call from one service to another takes a dozen
_PAUSE = 0.001  # seconds


class System:
    """Services for a test: `async with System(Worker, Router) as system: worker = system.client(Worker)`.

    Inside of the `with`, every service is served. A class that is named twice has two instances. `wait` is the time in
    seconds that they have to start together; without it, the limit `start`.

    Entering raises what the start of a service raises, with a note that names the service and the step, and ends the
    others; `DeadlineExceeded` names those that did not start in time. Leaving raises what a service ended with.
    """

    def __init__(self, *services: type[Any], wait: float | None = None) -> None:
        self.discovery = MemoryDiscovery()
        self.clock = VirtualClock()
        self.runtime = DistributedRuntime(self.discovery)
        self._wait = self.runtime.limits.start if wait is None else wait
        self._members = [_Member(service, self.discovery, self.clock) for service in services]

    def client(self, service: Callable[..., T], **options: Any) -> T:
        """A typed handle of a service, with the options and errors of `DistributedRuntime.client`."""
        return self.runtime.client(service, **options)

    def endpoint(self, address: str) -> Endpoint:
        """The endpoint at `namespace.component.endpoint`; `Invalid` (code `bad_name`) for any other form."""
        return self.runtime.endpoint(address)

    async def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let that time pass for durable calls: their sleeps, delays and tries. What is due is done before it returns.

        A jump goes from one instant at which something is due to the next, and on when all is quiet: each call waits for its
        time, for somebody outside, or for another call. `DeadlineExceeded` where a step goes on for longer than the limit `start`.
        """
        until = self.clock.now() + round((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000_000)
        await self._settled()
        while (due := self.clock.next()) is not None and due <= until:
            self.clock.jump(due)
            await self._settled()
        self.clock.jump(until)
        await self._settled()

    async def _settled(self) -> None:
        loop = asyncio.get_running_loop()
        give_up, turns = loop.time() + self._wait, 0
        # what is under way between two services is in the loop: so many quiet turns, and nothing was
        while turns < _QUIET:
            quiet = all(ask() for member in self._members for ask in member.runtime.quiet)
            turns = turns + 1 if quiet else 0
            if loop.time() > give_up:
                raise DeadlineExceeded(f"a durable call did not come to rest within {self._wait:g} s")
            # a step may wait for real: it is not asked a million times
            await asyncio.sleep(0 if quiet else _PAUSE)

    async def __aenter__(self) -> System:
        for member in self._members:
            member.start()
        try:
            async with asyncio.timeout(self._wait):
                await asyncio.gather(*(member.served() for member in self._members))
        except TimeoutError as error:
            late = ", ".join(member.address for member in self._members if not member.shown.is_set())
            await self._abandon()
            # a TimeoutError may also be a service's own, where all have started
            if late:
                raise DeadlineExceeded(f"{late} did not serve within {self._wait:g} s") from error
            raise
        except BaseException:
            await self._abandon()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()
        # an exception of the test is the news; one of a service would hide it
        if error is None:
            for member in self._members:
                member.outcome()

    async def _abandon(self) -> None:
        for member in self._members:
            member.cancel()
        await self._end()

    async def _end(self) -> None:
        # The last named first: those named before may still be called by it while it drains.
        for member in reversed(self._members):
            await member.end()
        await self.runtime.close()


class _Member:
    """One service of the system: its runtime, and the task that runs it."""

    def __init__(self, service: type[Any], discovery: MemoryDiscovery, clock: VirtualClock) -> None:
        self.address = spec.spec_of(service).address
        # Embedded: signals stay the test's. The number tells two instances of one class apart.
        options = LaunchOptions(listen=f"memory:{self.address}/{next(_numbers)}", embedded=True)
        self.shown = asyncio.Event()
        self._service = service
        self.runtime = DistributedRuntime(discovery, options=options)
        self.runtime.clock, self.runtime.forgetful = clock, True
        # durable endpoints are shown a moment after the others: when the service has its calls
        self.runtime.host.shown.append(lambda hosted: None if hosted.hidden else self.shown.set())
        self._life: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._life = asyncio.create_task(lifecycle.start(self._service, self.runtime), name=self.address)

    async def served(self) -> None:
        """Wait until the service serves, or has ended without serving; raises what it ended with."""
        assert self._life is not None
        shown = asyncio.ensure_future(self.shown.wait())
        try:
            # A service whose start fails never shows itself; waiting for that alone would hang the
            # test.
            await asyncio.wait({self._life, shown}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            shown.cancel()
        self.outcome()

    def cancel(self) -> None:
        """Cancel a service that does not serve yet. One that serves is drained instead."""
        if self._life is not None and not self.shown.is_set():
            self._life.cancel()

    async def end(self) -> None:
        """Drain, run its shutdown hooks, close its runtime."""
        self.runtime.stop()
        if self._life is not None:
            await asyncio.wait({self._life})
        await self.runtime.close()

    def outcome(self) -> None:
        """Raise what the service ended with, if it ended with an exception."""
        if self._life is not None and self._life.done() and not self._life.cancelled():
            self._life.result()

"""One boot: from the first line of the module channel to the exit code, whatever the process is started to serve.

A service, an app, the gateway, the orchestrator, a module: who starts one gives what differs, how it serves and what it
announces. Laws, the same for all: asked to stop (by Stop, by the end of the channel, by the first SIGTERM or SIGINT), it
takes nothing new, finishes what runs within the grace and exits 0, or 1 where calls had to be cut; asked before it
lived, it ends where it is, with 0; the second signal ends it at once. What was opened is released in reverse order
however it ends.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from bema.core import settings
from bema.core.deferred import deferred
from bema.core.errors import BemaError, NotFound, ProtocolError, Refused
from bema.core.limits import DEFAULTS
from bema.runtime import forks
from bema.runtime.process import inheritance
from bema.sdk.signals import Signals
from bema.sdk.status import StatusFactory, StatusView
from bema.wire.module.handshake import FEATURES, Announce, Init, Stop, agree, default_init

if TYPE_CHECKING:
    from bema.runtime.process import channel as channels
    from bema.runtime.process import line_channel
    from bema.wire.module import envelopes
else:  # of a process that was launched
    channels = deferred("bema.runtime.process.channel")
    line_channel = deferred("bema.runtime.process.line_channel")
    envelopes = deferred("bema.wire.module.envelopes")

_GONE = (errno.EPIPE, errno.EIO)  # nobody reads it any more; the terminal was hung up
LAST_WORDS = 1.0  # what `serve` has, after the drain, to come to its own end


class Served(abc.ABC):
    """What a process is booted for. `serve` runs until it is drained; `watch` and `close` are there for who needs them."""

    @abc.abstractmethod
    async def serve(self) -> None:
        """Listen, announce, serve. Where it ends by itself, or fails, the process ends."""

    @abc.abstractmethod
    async def drain(self, grace: float) -> bool:
        """Take nothing new, finish what runs within `grace` seconds. False when something had to be cut."""

    async def watch(self) -> None:
        """Fails when what is served should not go on."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """The last to be called, once, however it ended."""
        return


class Boot:
    """The start and the end of what is called `name`, in this process.

    `embedded` is a part of another program, which has the signals and the terminal. `shared` serves beside others on what
    they opened: its end is not theirs.
    """

    def __init__(self, name: str, *, embedded: bool = False, shared: bool = False) -> None:
        self.init = default_init(name)
        self.channel: channels.Channel | None = None
        self.status: StatusView | None = None
        self.limits = DEFAULTS  # what is in force from the handshake on
        self.stopping = asyncio.Event()
        self.opened = contextlib.AsyncExitStack()  # what is released at the end
        self._operations: line_channel.LineChannel | None = None
        self._name = name
        self._embedded = embedded
        self.shared = shared
        self._grace: float | None = None  # what the launcher said; else the limit
        self._phases: dict[str, int] = {}
        self._task = asyncio.current_task()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lives = False
        self._asked_to_end = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        forks.tell_children(self._forked)
        if not self._embedded:
            self.opened.enter_context(Signals(self._asked))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        # whatever happened: a listener or a record that stayed would be found by callers
        await self.opened.__aexit__(kind, error, trace)
        self._loop = None  # what forks from here on is the program's own
        if isinstance(error, asyncio.CancelledError) and self._asked_to_end and self._task is not None:
            return self._task.uncancel() == 0
        return False

    def _forked(self) -> None:
        # a constructor or a hook that forks: the child would start the same service once more, in its parent's loop
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it was closed
                self._loop.call_soon(forks.leave)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Name the step in whatever fails in it, and keep how long it took. Who was asked to end takes no further one."""
        if self._asked_to_end:
            raise asyncio.CancelledError
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            error.add_note(f"{self._name}: step {name!r} of start() failed")
            raise
        self.took(name, began)

    def took(self, phase: str, began: float) -> None:
        """Keep how long a phase of the start took, for the announcement; `began` is of the monotonic clock."""
        self._phases[phase] = round((time.monotonic() - began) * 1000)

    async def handshake(self) -> Init:
        """What the launcher says first, or a default, and what follows from it for any process."""
        self.limits = settings.current().limits
        self.channel = await inheritance.inherited(self.limits)
        if self.channel is not None:
            self.opened.callback(self.channel.close)
            self.channel.stop.add_done_callback(lambda stop: self._told(stop.result()))
            self._phases.update(self.channel.phases)
            self.init = await self.channel.init()
            self._obey(self.init)
        if os.environ.get("BEMA_STATUS_PORT") and not self._embedded:
            self.status = StatusFactory.choose().opened()
            self.opened.push_async_callback(self.status.left)
        return self.init

    def _obey(self, init: Init) -> None:
        agree(init.protocol)
        # before the user's class is made: a constructor reads the environment
        os.environ.update(init.env)
        self.limits = self.limits.told(init.settings or {})
        for held in (init.lease_fd, init.operations_fd):
            if held is not None:
                os.set_inheritable(held, False)
                forks.close_in_children(held)
        if init.drain_ms is not None:
            self._grace = init.drain_ms / 1000

    async def operations(self) -> line_channel.LineChannel:
        """The socket for what this process asks of the orchestrator, opened by the first question.

        `NotFound` where the launcher passed none.
        """
        if self._operations is None:
            if self.init.operations_fd is None:
                raise NotFound(f"{self._name} was given no socket for operations")
            self._operations = line_channel.LineChannel(envelopes.read_to_module, self.limits)
            self.opened.callback(self._operations.close)
            await self._operations.speak(self.init.operations_fd)
        return self._operations

    def announce(self, announce: Announce, shown: str = "") -> None:
        """It serves: say so to who launched it, or show it to who started it by hand."""
        if self.channel is None:
            self._show(shown)
            return
        said = msgspec.structs.replace(
            announce,
            instance=announce.instance or self.init.instance,
            protocol=agree(self.init.protocol),
            features=None if self.init.features is None else [f for f in FEATURES if f in self.init.features],
            phases=self._phases or None,
        )
        with contextlib.suppress(ProtocolError):  # it was told to stop meanwhile
            self.channel.announce(said)

    def _show(self, text: str) -> None:
        if not self._embedded:
            _say(text)

    async def live(self, served: Served) -> None:
        """Serve until it ends or is told to; then drain, then close. `SystemExit` (1) where something was cut."""
        self._lives = True
        running, watching, asked = (
            asyncio.ensure_future(one) for one in (served.serve(), served.watch(), self.stopping.wait())
        )
        whole = closed = True
        ending = time.monotonic()
        try:
            await asyncio.wait({running, watching, asked}, return_when=asyncio.FIRST_COMPLETED)
            ending = time.monotonic()
            if asked.done() or not self.shared:
                # not where it ended itself beside others: a drain of the runtime that they share
                # would end them, too
                whole = await served.drain(self._grace_now())
            if asked.done() and not running.done():
                await asyncio.wait({running}, timeout=LAST_WORDS)
        finally:
            asked.cancel()
            watched = not watching.cancel()
            cut = running.cancel()
            # what holds on to its end, a hook or a task that takes no cancellation, does not hold the process
            # the rest of the one grace, not a second one: the launcher counts from Stop
            left = max(LAST_WORDS, ending + self._grace_now() - time.monotonic())
            await asyncio.wait({running, watching}, timeout=left)
            closed = await self._closed(served, left)
            self._show("")  # what others wrote to a terminal that has gone since
        if watched:
            watching.result()
        if not cut:
            running.result()
        if not self.shared and not (whole and closed):
            cut_off = "its own end was" if whole else "calls were"
            raise SystemExit(f"{self._name}: {cut_off} cut, not over within the grace (drain)")

    def _grace_now(self) -> float:
        return self.limits.drain if self._grace is None else self._grace

    async def _closed(self, served: Served, within: float) -> bool:
        """Whether what is served came to its end in that time; what does not is left behind."""
        closing = asyncio.ensure_future(served.close())
        done, _ = await asyncio.wait({closing}, timeout=within)
        if not done:
            closing.cancel()
            return False
        closing.result()
        return True

    def _asked(self) -> None:
        if self._lives:
            self.stopping.set()
        elif self._task is not None and not self._asked_to_end:
            self._asked_to_end = True
            # a start that waits, as in a hook, can be ended by nothing else
            self._task.cancel()

    def _told(self, stop: Stop) -> None:
        if stop.deadline_ms is not None:
            self._grace = stop.deadline_ms / 1000
        self._asked()


def run(
    work: Coroutine[Any, Any, None],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    *,
    platform: bool = False,
) -> None:
    """The edge of a process that is not started by hand: what is refused is said on stderr, and the exit code is 1.

    A process of the `platform` says it in one line, which the keeper repeats; its other failures are ours to trace.
    """
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(work)
    except BemaError as error:
        if not platform:
            raise SystemExit(sentence(error)) from error
        if isinstance(error, Refused):
            raise SystemExit(f"error: {error.message} {error.fix}") from error
        raise


def _say(text: str) -> None:
    """On the terminal, with what waits to be written there.

    One that is gone takes nothing more: what it did not take is let go, for Python would fail once more when it flushes
    at exit, and exit with 120.
    """
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError as error:
        if error.errno in _GONE:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stderr.fileno())
    except AttributeError:
        return  # there is none


def sentence(error: BemaError) -> str:
    """A refusal as it stands on a terminal or in a log."""
    return f"{error.code}: {error.message}\n  fix: {error.fix}"

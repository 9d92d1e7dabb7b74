"""What an instance asks of the orchestrator: a socket of its own per instance, one reader and one dispatcher on it.

The launcher makes the pair; the instance inherits one end, the orchestrator reads the other, and the keeper keeps a copy
of that one without reading it: it outlives the orchestrator and is lent to the next, and nothing that is asked passes
through the keeper. Laws: answers come in the order of the questions, for half of the protocol's have no other match;
whatever is asked is answered, with a refusal where nobody here answers it; and a module that reads no answers loses its
socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import msgspec

from bema.core.errors import BemaError, Failed, NotFound
from bema.core.limits import DEFAULTS, Limits
from bema.core.naming import show_instance_id
from bema.deploy.launch.keeper_client import KeeperClient
from bema.runtime.process.line_channel import LineChannel
from bema.runtime.tasks import Tasks
from bema.wire.module.envelopes import Envelope, read_from_module
from bema.wire.module.lines import BadLine
from bema.wire.module.refusals import refusal_of, unread_line

NAME, THEIRS = "operations", "operations_fd"
_WAITING = 64  # questions that wait before no more are read
_UNREAD = 4 * 1024 * 1024  # bytes of answers that a module may leave unread

_log = logging.getLogger("bema.operations")

Answer = Callable[[Any], Awaitable[msgspec.Struct | None]]


class Operations(LineChannel):
    """The orchestrator's end. `answers` is who answers which operation."""

    def __init__(
        self, instance: int, answers: Mapping[type[Any], Answer], limits: Limits = DEFAULTS, *, taken_over: bool = False
    ) -> None:
        """`taken_over`: an orchestrator before this one has read and written here."""
        super().__init__(read_from_module, limits)
        self._name = show_instance_id(instance)
        self._answers = answers
        # of what its predecessor read half a line may be left. The tail of a line is never a message: it has a
        # bracket or a quote too many
        self._tail = taken_over
        self._taken_over = taken_over
        self._asked: asyncio.Queue[Any] = asyncio.Queue()
        self._tasks = Tasks(f"operations of {self._name}")

    async def speak(self, descriptor: int) -> Self:
        await super().speak(descriptor)
        # whatever half a line was written, the module skips it and reads the next
        if self._taken_over:
            self.write(b"\n")  # ends what the one before was writing
        self._tasks.start(self._serve(), "dispatcher")
        return self

    async def stop(self) -> None:
        await self._tasks.stop()
        self.close()

    def heard(self, message: Any) -> None:
        # a whole message came, so nothing of the predecessor's is left in front
        self._tail = False
        self._put(message.content if isinstance(message, Envelope) else message)

    def unread(self, bad: BadLine) -> None:
        tail, self._tail = self._tail, False
        if not tail:
            super().unread(bad)
            self._put(bad)

    def _put(self, asked: Any) -> None:
        self._asked.put_nowait(asked)
        if self._asked.qsize() >= _WAITING and self._transport is not None:
            self._transport.pause_reading()

    async def _serve(self) -> None:
        while True:
            asked = await self._asked.get()
            if (answer := await self._answer(asked)) is not None:
                self.send(answer)
            if self._outlet is not None and self._outlet.unsent > _UNREAD:
                _log.warning("instance %s reads no answers: its socket for operations is cut", self._name)
                # shut down, not closed: the keeper holds a copy, through which the module would
                # wait for ever
                self.cut()
                return
            if self._asked.qsize() < _WAITING and self._transport is not None:
                self._transport.resume_reading()

    async def _answer(self, asked: Any) -> msgspec.Struct | None:
        if isinstance(asked, BadLine):
            return unread_line(asked.reason)
        answer = self._answers.get(type(asked))
        if answer is None:
            return refusal_of(asked, NotFound(f"nobody here answers {asked.__struct_config__.tag!r}"))
        try:
            return await answer(asked)
        except BemaError as error:
            return refusal_of(asked, error)
        except Exception:  # noqa: BLE001 - the edge of an operation: the next ones are answered all the same
            _log.exception("instance %s: an operation failed", self._name)
            return refusal_of(asked, Failed("the operation failed; the orchestrator's log has the traceback"))


class OperationSockets:
    """The sockets of one launcher's instances."""

    def __init__(self, keeper: KeeperClient, answers: Mapping[type[Any], Answer], limits: Limits = DEFAULTS) -> None:
        self._keeper = keeper
        self._answers = answers
        self._limits = limits
        self._open: dict[int, Operations] = {}

    async def begin(self, instance: int, passing: contextlib.ExitStack) -> dict[str, int]:
        """Make the pair of a new instance and read our end; copies of both ends to spawn it with, closed with `passing`."""
        ours, theirs = (passing.enter_context(end) for end in socket.socketpair())
        await self._speak(instance, os.dup(ours.fileno()), taken_over=False)
        return {NAME: ours.fileno(), THEIRS: theirs.fileno()}

    async def resume(self, instance: int) -> None:
        """Go on where the orchestrator before this one ended."""
        if instance not in self._open:
            await self._speak(instance, await self._keeper.borrow(instance, NAME), taken_over=True)

    async def _speak(self, instance: int, descriptor: int, *, taken_over: bool) -> None:
        operations = Operations(instance, self._answers, self._limits, taken_over=taken_over)
        self._open[instance] = await operations.speak(descriptor)

    async def end(self, instance: int) -> None:
        if (operations := self._open.pop(instance, None)) is not None:
            await operations.stop()

    async def close(self) -> None:
        """Let go of all of them; the keeper keeps its copies."""
        for instance in list(self._open):
            await self.end(instance)

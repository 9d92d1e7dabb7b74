"""One process, and all that the keeper holds of it: its channel, its log pipes, its end."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from .json_channel import JsonChannel
from .lines import Lines
from .logs import Log
from .loop import READ, WRITE, Loop, Timer
from .processes import spawn, start_of
from .warden import ASK, END, Warden
from .zygote import Forked, Zygote

# a read is small, so that a child that floods its log costs the others milliseconds
_READ = 16 * 1024
_LAST_READS = 256
_CHANNEL_SEND = 4 * 1024 * 1024
_KILL_AFTER = 0.5  # seconds past the grace that was given


class Order(NamedTuple):
    """What to run. `descriptors` are inherited under their numbers; `marker` is a variable that its offspring inherit."""

    name: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    init: dict[str, Any]
    descriptors: tuple[int, ...] = ()
    marker: str = ""
    by_signal: bool = False  # it does not read its channel: SIGTERM is its Stop
    stdio: tuple[int, int] | None = None  # its stdin and stdout are these, and it has no channel here


class Wiring:
    """The ends of its channel and its log pipes: within the `with`, what is to be its own; after it, ours alone.

    Where the block fails, ours are closed, too; afterwards they are whose it is that begins.
    """

    def __init__(self, streams: tuple[str, ...]) -> None:
        self._streams = streams
        self._given = contextlib.ExitStack()
        self._ours = contextlib.ExitStack()
        self.theirs: dict[str, int] = {}
        self.pipes: dict[str, int] = {}

    def __enter__(self) -> Self:
        try:
            self.channel, channel = socket.socketpair()
            self._ours.callback(self.channel.close)
            self._given.callback(channel.close)
            self.theirs["channel"] = channel.fileno()
            for stream in self._streams:
                reading, writing = os.pipe()
                self._ours.callback(os.close, reading)
                self._given.callback(os.close, writing)
                os.set_blocking(reading, False)
                self.pipes[stream], self.theirs[stream] = reading, writing
        except OSError:
            self._given.close()
            self._ours.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._given.close()
        if error is not None:
            self._ours.close()

    def close(self) -> None:
        self._ours.close()


Said = Callable[[str], None]
Heard = Callable[["Child", dict[str, Any]], None]
Ended = Callable[["Child", int | None, int | None], None]


class Child:
    def __init__(
        self, loop: Loop, order: Order, log: Log, line_limit: int, heard: Heard, ended: Ended, said: Said | None = None
    ) -> None:
        """`said` is told every line of its stdout."""
        self.order = order
        self.log = log
        self.announce: dict[str, Any] | None = None
        self.stopping = False
        self.since = time.time_ns() // 1000
        self._loop = loop
        self._heard = heard
        self._ended = ended
        self._said = said
        self._killer: Timer | None = None
        self._pipes: dict[int, tuple[str, Lines]] = {}
        self._log_line = log.line_limit
        self._line_limit = line_limit
        self._paused = False

    def launch(self, descriptor_limit: tuple[int, int]) -> None:
        """Spawn it and say Init. `OSError` when it cannot be; nothing is held then."""
        order = self.order
        with Wiring(("stdout", "stderr") if order.stdio is None else ("stderr",)) as ends:
            stdin, stdout = order.stdio or (subprocess.DEVNULL, ends.theirs["stdout"])
            # who speaks over its own pipes is given no channel of ours: the end that it would have is closed
            named = {} if order.stdio else {"BEMA_CHANNEL": str(ends.theirs["channel"])}
            start = functools.partial(
                spawn,
                order.argv,
                order.env | named,
                order.cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=ends.theirs["stderr"],
                descriptors={*map(int, named.values()), *order.descriptors},
                descriptor_limit=descriptor_limit,
            )
            warden = Warden.start(order.name, start)
        self._begin(warden, ends)

    def fork(self, zygote: Zygote, done: Callable[[str], None]) -> None:
        """Have it forked and say Init; `done` is told why it was not, or nothing. `OSError` when it cannot be asked for."""
        order = self.order
        # Init names what it inherits by our numbers, of which the fork gets its own
        named = {name: each for name, each in order.init.items() if name.endswith("_fd") and each in order.descriptors}

        def forked(warden: Warden | None, why: str) -> None:
            if warden is None:
                ends.close()
            else:
                self._begin(warden, ends)
            done(why)

        with Wiring(("stdout", "stderr")) as ends:
            wanted = Forked(order.name, {**ends.theirs, **named}, {"env": order.env, "cwd": order.cwd})
            zygote.fork(wanted, forked)

    def _begin(self, warden: Warden, ends: Wiring) -> None:
        self.warden = warden
        self.pid = warden.child
        self.process_start = start_of(self.pid)
        self.channel = JsonChannel(ends.channel, self._line_limit, _CHANNEL_SEND)
        for stream, reading in ends.pipes.items():
            self._pipes[reading] = (stream, Lines(self._log_line))
            self._loop.watch(reading, READ, functools.partial(self._read_log, reading))
        self.send(self.order.init)
        self.log.note(f"started as process {self.pid}")

    # the channel

    def send(self, message: dict[str, Any]) -> None:
        self.channel.send(message)
        self._watch_channel()

    def pause(self, paused: bool) -> None:
        """Stop reading its channel while nobody takes what it says: its own writes will wait."""
        if paused != self._paused:
            self._paused = paused
            self._watch_channel()

    def _watch_channel(self) -> None:
        events = (0 if self._paused else READ) | (WRITE if self.channel.unsent else 0)
        # a closed socket is always readable: watched on, it would turn the loop without end
        if self.channel.closed or not events:
            self._loop.forget(self.channel.socket)
        else:
            self._loop.watch(self.channel.socket, events, self._turn_channel)

    def _turn_channel(self) -> None:
        self.channel.flush()
        if not self._paused:
            self._receive()
        self._watch_channel()

    def _receive(self) -> int:
        heard = self.channel.receive()
        for sentence in heard.refused:
            self.log.note(f"ignored on the channel: {sentence}", "warning")
        for message in heard.messages:
            # kept here for the orchestrator that comes next: it asks `list`, and no child announces
            # twice
            if message.get("op") == "announce":
                self.announce = {key: value for key, value in message.items() if key != "op"}
            self._heard(self, message)
        return len(heard.messages) + len(heard.refused)

    # the logs

    def _read_log(self, reading: int) -> bool:
        """One read; False when there is nothing more now."""
        stream, lines = self._pipes[reading]
        try:
            data = os.read(reading, _READ)
        except BlockingIOError:
            return False
        whole = lines.feed(data) if data else lines.rest()
        self.log.write(stream, whole)
        if self._said is not None and stream == "stdout":
            for line in whole:
                self._said(line.text.decode("utf-8", "replace"))
        if not data:
            self._close_pipe(reading)
        return bool(data)

    def _close_pipe(self, reading: int) -> None:
        self._loop.forget(reading)
        del self._pipes[reading]
        os.close(reading)

    # the end

    def stop(self, grace: float, reason: str) -> None:
        """Ask it to stop; after the grace it and all it started are killed. Asking again replaces the grace."""
        # the last word counts: a second signal on the terminal shortens a grace that runs
        self.stopping = True
        if self._killer is not None:
            self._killer.cancel()
        # before its announcement nobody may be reading the channel yet, or ever
        if self.order.by_signal or self.order.stdio or self.announce is None or self.channel.closed:
            self.warden.signal(ASK)
        else:
            self.send({"op": "shutdown", "deadline_ms": int(grace * 1000), "reason": reason})
        self._killer = self._loop.after(grace + _KILL_AFTER if grace > 0 else 0.0, self.kill)

    def kill(self) -> None:
        self.warden.signal(END)

    def reaped(self) -> None:
        """Its warden has ended, and so has all it started: take its last words, let go of everything."""
        code = os.waitstatus_to_exitcode(self.warden.close())
        # whatever goes wrong with its logs: an end that is not told would leave the orchestrator
        # waiting
        try:
            self._take_last_words()
            expected = self.stopping and code in (0, -signal.SIGTERM)
            self.log.note(_how(code), "info" if expected else "error")
        finally:
            self._release()
            self._ended(self, code if code >= 0 else None, -code if code < 0 else None)

    def _take_last_words(self) -> None:
        for reading in list(self._pipes):
            # bounded: who was sent the other end by a socket may write without end
            for _ in range(_LAST_READS):
                if not self._read_log(reading):
                    break
            if reading in self._pipes:  # somebody to whom it was sent still holds the other end
                stream, lines = self._pipes[reading]
                self.log.write(stream, lines.rest())
        while not self.channel.closed and self._receive():
            pass

    def _release(self) -> None:
        for reading in list(self._pipes):
            self._close_pipe(reading)
        self._loop.forget(self.channel.socket)
        self.channel.close()
        self.log.close()
        if self._killer is not None:
            self._killer.cancel()


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"

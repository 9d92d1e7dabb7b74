"""Connection: one end of an RPC connection, without knowledge of calls, which its two subclasses add.

Laws: all messages of one turn of the event loop leave in one write; they are collected until the turn ends or a frame is
full. The limits become numbers of the connection when it is made and when it is greeted, so that no call looks them up.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from bema.core.errors import BemaError, Disconnected, ProtocolError, TooLarge
from bema.core.limits import DEFAULTS, Limits
from bema.runtime import forks
from bema.wire.rpc import calls, failures, frames, reader

HIGH_WATER: Final = 1024 * 1024
READ: Final = 256 * 1024
NEVER: Final = float("inf")

# these versions of asyncio never tell that a buffer is full after `writelines` (CVE-2024-12254)
_TELLS: Final = sys.version_info < (3, 12) or (3, 12, 9) <= sys.version_info < (3, 13) or sys.version_info >= (3, 13, 2)


class NotGreeted(ProtocolError):
    """The peer accepted the connection and sent no greeting in time."""


_spaces: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = weakref.WeakKeyDictionary()


def _space(loop: asyncio.AbstractEventLoop) -> memoryview:
    """The buffer that all connections of a loop read into."""
    # one for all: a read is decoded before the loop begins the next, and 256 KiB for each connection would add up
    if loop not in _spaces:
        _spaces[loop] = memoryview(bytearray(READ))
    return _spaces[loop]


class Sizes:
    """The sizes in bytes that hold on one connection: our limits until the greeting, then what both sides accept."""

    __slots__ = ("connection", "frame", "grant", "large", "limits", "stream")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.frame = limits.rpc_frame
        self.large = frames.LARGE  # a payload from here on travels alone, after it was looked at
        self.stream = limits.rpc_stream_window
        self.connection = limits.rpc_connection_window
        # what we give back is a part of what we said that we hold
        self.grant = min(self.stream, self.connection) // calls.GRANTS

    def agree(self, hello: frames.Hello, largest: int) -> None:
        """Take over what the peer accepts: from here on neither side sends more than the other takes."""
        # what is too large has to come by where that is looked at
        self.large = min(frames.LARGE, largest + 1)
        self.stream = max(calls.FLOOR, min(self.stream, hello.stream))
        self.connection = max(calls.FLOOR, min(self.connection, hello.window))


class Connection(asyncio.BufferedProtocol):
    """Collects and writes messages, reads batches, and keeps the connection's window, deadlines and end."""

    # CPython keeps the attributes of an instance inline up to thirty, and a connection has more: in slots each is found as fast
    __slots__ = (
        "__weakref__",
        "_descriptor",
        "blocked",
        "closed",
        "error",
        "full",
        "greeting",
        "heard",
        "hurried",
        "largest",
        "loop",
        "newest",
        "next_due",
        "out",
        "owed",
        "paused",
        "reader",
        "received",
        "scheduled",
        "size",
        "sizes",
        "timer",
        "transport",
        "window",
        "written",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits = DEFAULTS) -> None:
        self.loop = loop
        self.sizes = Sizes(limits)
        self.out: list[Any] = []
        self.size = 0  # payload bytes in `out`
        self.scheduled = False
        self.hurried = False  # something left before the end of this turn
        self.reader = reader.BatchReader(_space(loop))
        self.transport: asyncio.Transport | None = None
        self.paused: asyncio.Future[None] | None = None
        self.full = limits.rpc_frame // frames.FULL  # payload bytes at which a batch is closed
        self.largest = limits.rpc_message
        self.window = limits.rpc_connection_window  # stream bytes we may still send
        self.owed = 0  # stream bytes we consumed and have not given back
        self.blocked: set[Any] = set()  # outflows that wait for credit
        self.heard = True
        self.next_due = NEVER
        self.timer: asyncio.TimerHandle | None = None
        self.greeting: asyncio.TimerHandle | None = None
        self.error: BemaError | None = None
        self.closed = False
        self.newest = 0  # the newest call's id
        self.written = 0  # the newest call's id that was given to the transport
        self.received: Callable[[list[Any]], None] = self._first
        self._descriptor = -1

    # what the two roles fill in

    def greeted(self, hello: frames.Hello) -> None:
        """Take the peer's first message. A subclass says how; here it raises `TypeError`."""
        raise TypeError("a role says what a greeting means")

    def batch(self, messages: list[Any]) -> None:
        """Take the messages of one read, on the hot path. A subclass says how; here it raises `TypeError`."""
        raise TypeError("a role says what a batch means")

    def lost(self, error: BemaError) -> None:
        """Settle what is open: the connection is gone, for the reason `error`."""

    def deadlines(self) -> Iterable[float]:
        """The deadlines of the open calls, as times of the loop in seconds."""
        return ()

    def expire(self, now: float) -> None:
        """End the calls whose deadline is at or before `now`."""

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        # asyncio pauses at 64 KiB, a quarter of one frame of ours
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._descriptor = sock.fileno()
            forks.close_in_children(self._descriptor)
        # who connects and says nothing would hold a descriptor for as long as it likes
        self.greeting = self.loop.call_later(self.sizes.limits.rpc_connect, self._never_greeted)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.reader.room()

    def buffer_updated(self, nbytes: int) -> None:
        # one test per read; what follows from it runs once per heartbeat
        if not self.heard:
            self.hear()
        try:
            messages = self.reader.put(nbytes)
            if messages:
                self.received(messages)
        except ProtocolError as error:
            self.abort(error)

    def data_received(self, data: bytes) -> None:
        """Take bytes that a transport has read already."""
        for size in self.reader.lay(data):
            if self.error is None:
                self.buffer_updated(size)

    def pause_writing(self) -> None:
        self.paused = self.loop.create_future()

    def resume_writing(self) -> None:
        paused, self.paused = self.paused, None
        if paused is not None and not paused.done():
            paused.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.closed:
            return
        self.closed = True
        forks.forget(self._descriptor)
        for timer in (self.timer, self.greeting):
            if timer is not None:
                timer.cancel()
        self.resume_writing()
        error = self.error or Disconnected(str(exc or "") or "its other end closed it or is gone")
        for outflow in tuple(self.blocked):
            outflow.wake()
        self.lost(error)

    # sending

    def put(self, ident: int, kind: int, body: Any) -> None:
        """Send a message at the end of this turn."""
        self.out += (ident, kind, body)
        if not self.scheduled:
            self.scheduled = True
            # at the end of this turn: what other calls answer in it leaves in the same write
            self.loop.call_soon(self._turn)

    def put_payload(self, ident: int, kind: int, payload: bytes) -> None:
        """Send a message whose body is a payload; `TooLarge` for one beyond the limit, and the connection goes on."""
        self.size = size = self.size + len(payload)
        if size >= self.full:
            self._put_full(ident, kind, payload)
            return
        self.out += (ident, kind, payload)
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self._turn)

    def _put_full(self, ident: int, kind: int, payload: bytes) -> None:
        if len(payload) >= self.sizes.large:
            self.size -= len(payload)
            self.put_large(ident, kind, b"", payload)
        else:
            self.out += (ident, kind, payload)
            self.flush()

    def put_large(self, ident: int, kind: int, body: Any, payload: bytes) -> None:
        """Send a message with a large payload in a frame of its own, after what was put before it.

        Raises:
            TooLarge: the payload is larger than the limit `rpc_message` of either side.
        """
        if len(payload) > self.largest:
            raise TooLarge(
                f"a message of {len(payload)} bytes is larger than the limit of {self.largest} bytes (rpc_message)",
                limit=self.largest,
                size=len(payload),
            )
        self.flush()
        self.written = self.newest
        if self.transport is not None and not self.closed:
            parts = frames.pack_large(ident, kind, body, payload)
            if _TELLS:
                self.transport.writelines(parts)
            else:
                self.transport.write(b"".join(parts))

    def _turn(self) -> None:
        self.scheduled = self.hurried = False
        self.flush()

    def hurry(self) -> None:
        """Send at once what was put, but only once per turn: streams that begin together still share a write."""
        if not self.hurried:
            self.hurried = True
            self.flush()

    def flush(self) -> None:
        """Write what was put, in one write."""
        out = self.out
        if out:
            self.out = []
            self.size = 0
            self.written = self.newest
            if not self.closed and self.transport is not None:
                frame = frames.pack(out)
                self.transport.write(
                    frame if len(frame) <= self.sizes.frame else frames.pack_within(out, self.sizes.frame)
                )

    async def writable(self) -> None:
        """Wait while the socket's write buffer is full. Returns also when the connection is closed."""
        while self.paused is not None and not self.closed:
            # one future for all who wait: the first that is cancelled must not cancel it for the
            # others
            await asyncio.shield(self.paused)

    # the window

    def release(self, size: int) -> None:
        """Give credit for stream bytes that nobody will read."""
        self.owed += size
        if self.owed >= self.sizes.grant and not self.closed:
            self.put(0, frames.CREDIT, self.owed)
            self.owed = 0

    def credited(self, size: Any) -> int:
        """Take the peer's credit of `size` bytes; `ProtocolError` where it is no count."""
        if type(size) is not int or size < 0:
            raise ProtocolError(f"a credit of {size!r}")
        # capped, as of a stream
        self.window = min(self.window + size, self.sizes.connection)
        if self.blocked:
            for outflow in tuple(self.blocked):
                outflow.wake()
        return size

    # deadlines: one timer for the connection, armed for the nearest

    def watch(self, deadline: float) -> None:
        """Have `expire` called at a deadline, a time of the loop in seconds."""
        if deadline < self.next_due:
            self.next_due = deadline
            if self.timer is not None:
                self.timer.cancel()
            self.timer = self.loop.call_at(deadline, self._due)

    def _due(self) -> None:
        self.timer = None
        self.next_due = NEVER
        # uvloop counts timers in whole milliseconds, so one may come a little early, and would be armed again for nothing
        self.expire(self.loop.time() + 0.001)
        nearest = min(self.deadlines(), default=NEVER)
        if nearest < NEVER:
            self.watch(nearest)

    # greeting and end

    def _first(self, messages: list[Any]) -> None:
        ident, kind, body = messages[:3]
        if ident == 0 and kind == frames.ERROR:
            failure = failures.read_failure(body)
            raise _as_protocol_error(failures.rebuild(failure, {}), self)
        if ident != 0 or kind != frames.HELLO:
            raise ProtocolError("the first message is no hello")
        hello = frames.read_hello(body)
        frames.agree(hello)
        if self.greeting is not None:
            self.greeting.cancel()
        self._agree_on_sizes(hello)
        self.received = self.batch
        self.greeted(hello)
        if len(messages) > 3:
            # not `batch`: whoever was not let in by `greeted` is not listened to
            self.received(messages[3:])

    def _agree_on_sizes(self, hello: frames.Hello) -> None:
        sizes = self.sizes
        self.largest = min(self.largest, hello.largest)
        sizes.agree(hello, self.largest)
        self.full = min(self.full, self.largest + 1)
        self.window = sizes.connection
        whole = sizes.limits.rpc_message + frames.HEADERS_LIMIT + frames.HELLO_LIMIT
        self.reader.limit = max(whole, frames.FRAME_LIMIT)

    def hello(self, **said: str) -> bytes:
        """The greeting of this side, as a frame."""
        limits = self.sizes.limits
        return frames.pack_hello(
            frames.Hello(
                largest=limits.rpc_message,
                stream=limits.rpc_stream_window,
                window=limits.rpc_connection_window,
                **said,  # type: ignore[arg-type]
            )
        )

    def _never_greeted(self) -> None:
        self.abort(NotGreeted(f"the peer did not greet within {self.sizes.limits.rpc_connect:g} s"))

    def hear(self) -> None:
        """Note that the peer has sent something since the last look."""
        self.heard = True

    def abort(self, error: BemaError) -> None:
        """Drop the connection at once; the open calls end with `error`."""
        self.error = self.error or error
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Write what was put, then close the connection."""
        self.flush()
        if self.transport is not None:
            self.transport.close()


def _as_protocol_error(error: BaseException, connection: Connection) -> ProtocolError:
    """The peer refused us: its reason becomes the connection's, then the connection ends as after any bad frame."""
    if isinstance(error, BemaError):
        connection.error = error
    return ProtocolError(str(error))

"""The way out of the module channel: whole lines, from any thread, while the loop turns and while it does not.

A transport of asyncio belongs to its loop, so this has a descriptor of its own, and one buffer for all who write. Laws: no
line is ever inside another; nobody waits for the reader; and of lines that each say the whole of something only the last
is kept while none can be written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading

from bema.runtime import forks


class ChannelWriter:
    """Writes on a duplicate of the descriptor. `write` and `tell` from any thread, `end` from the loop's."""

    def __init__(self, descriptor: int) -> None:
        self._loop = asyncio.get_running_loop()
        # a duplicate: asyncio closes its own when its reader hears the end, and a line may still be
        # under way
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._socket.setblocking(False)
        self._lock = threading.Lock()
        self._unsent = bytearray()
        self._latest = b""  # waits for `_unsent` to be empty
        self._watched = False
        self._ended = False  # takes nothing more
        self._descriptor = self._socket.fileno()
        forks.close_in_children(self._descriptor)

    @property
    def unsent(self) -> int:
        """Bytes that wait for the reader."""
        return len(self._unsent)

    def write(self, line: bytes) -> None:
        """Write a line after all that was written before it; nothing once the channel is over."""
        with self._lock:
            if not self._ended:
                self._unsent += line
                self._flush()

    def tell(self, line: bytes) -> None:
        """Write a line that stands for the one told before it, which is dropped if it still waits."""
        with self._lock:
            if not self._ended:
                self._latest = line
                self._flush()

    def end(self) -> None:
        """Take nothing more, and close when everything is written."""
        with self._lock:
            self._ended = True
            self._flush()
            if not self._unsent:
                self._close()

    def _flush(self) -> None:
        """Write what the socket takes now; the loop sees to the rest when it turns."""
        try:
            while self._unsent or self._latest:
                # only between lines: a half that was sent must be followed by its other half
                if not self._unsent:
                    self._unsent, self._latest = bytearray(self._latest), b""
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            # add_writer is the loop's alone, and this may be the thread that found it standing
            # still
            if not self._watched:
                self._watched = True
                with contextlib.suppress(RuntimeError):  # the loop is closed, and so is this soon
                    self._loop.call_soon_threadsafe(self._watch)
        except OSError:  # the reader is gone, which the loop hears by itself
            self._unsent.clear()
            self._latest = b""

    def _watch(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        with self._lock:
            self._unwatch()
            self._flush()
            if self._ended and not self._unsent:
                self._close()

    def _unwatch(self) -> None:
        self._watched = False
        self._loop.remove_writer(self._socket)

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            if self._watched:
                self._unwatch()
            forks.forget(self._descriptor)
            self._socket.close()

"""One JSON object per line over a non-blocking socket: the module channels, and the orchestrator's link."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple

from .lines import Lines

_READ = 64 * 1024
_ENVELOPES = 64


class Heard(NamedTuple):
    """What one read brought: whole messages, and a sentence for each line that was none."""

    messages: list[dict[str, Any]]
    refused: list[str]


class JsonChannel:
    """Never blocks, never raises for what the peer does: a broken peer is `closed`."""

    def __init__(self, end: socket.socket, line_limit: int, send_limit: int) -> None:
        end.setblocking(False)
        self.socket = end
        self.closed = False
        self._lines = Lines(line_limit)
        self._line_limit = line_limit
        self._send_limit = send_limit
        self._unsent = bytearray()

    @property
    def unsent(self) -> int:
        return len(self._unsent)

    def receive(self) -> Heard:
        heard = Heard([], [])
        # one read a turn: who floods its channel must not keep the others from theirs
        try:
            data = self.socket.recv(_READ)
        except BlockingIOError:
            return heard
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return heard
        for text, left_out in self._lines.feed(data):
            self._read(text, left_out, heard)
        return heard

    def _read(self, text: bytes, left_out: int, heard: Heard) -> None:
        # it was never kept whole, so it cannot be read; what comes after its newline can
        if left_out:
            heard.refused.append(f"a line of more than {self._line_limit} bytes")
            return
        if not text.strip():
            return
        try:
            message = json.loads(text)
            _check(message)
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, dict):
            heard.messages.append(message)
        else:
            heard.refused.append(f"not a JSON object: {text[:200]!r}")

    def send(self, message: dict[str, Any]) -> None:
        """Queue a message; a peer that lets `send_limit` bytes wait is closed."""
        if self.closed:
            return
        self._unsent += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self.flush()
        # memory is bounded by closing: to drop a line in the middle would break what the peer
        # counts on
        if len(self._unsent) > self._send_limit:
            self.closed = True

    def flush(self) -> None:
        """Write what the socket takes now."""
        try:
            while self._unsent:
                del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True
            self._unsent.clear()

    def close(self) -> None:
        self.closed = True
        self.socket.close()


def _check(message: Any) -> None:
    """`ValueError` or `RecursionError` for what Python reads as JSON and others do not: we pass it on to them.

    NaN, numbers without end, half a character; and what is nested so deeply that no envelope fits around it.
    """
    for _ in range(_ENVELOPES):
        message = [message]
    json.dumps(message, ensure_ascii=False, allow_nan=False).encode()

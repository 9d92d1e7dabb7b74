"""A WebSocket client of a few lines (RFC 6455): opens one through the gateway, says a text, hears a text."""

from __future__ import annotations

import base64
import os
import socket
import struct
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class WebSocket:
    """`status` is what the upgrade was answered with; 101 where it is open."""

    def __init__(self, url: str, seconds: float = 20.0) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), seconds)
        self._read = self._socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        self._socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nOrigin: http://{parts.netloc}\r\n\r\n".encode()
        )
        self.status = int(self._read.readline().split()[1])
        while self._read.readline().strip():
            pass

    def say(self, text: str) -> None:
        content, mask = text.encode(), os.urandom(4)
        assert len(content) < 126
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))
        self._socket.sendall(bytes([0x81, 0x80 | len(content)]) + mask + masked)

    def hear(self) -> str:
        """The next text; what is no text is passed over."""
        while True:
            first, length = self._read.read(2)
            if length == 126:
                (length,) = struct.unpack(">H", self._read.read(2))
            content = self._read.read(length)
            if first & 0x0F == 1:
                return content.decode()
            assert first & 0x0F != 8, "the WebSocket was closed"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._read.close()
        self._socket.close()

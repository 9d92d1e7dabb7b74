"""A web server of a test: it says what it is told to, byte by byte, and remembers who came."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit


class Seen(NamedTuple):
    """A request as it came; names of headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


Answering = Callable[[Seen], "bytes | AsyncIterator[bytes] | Awaitable[bytes]"]


def said(body: bytes | str = b"", status: int = 200, **headers: str) -> bytes:
    """A whole answer; an underscore in a header's name stands for a dash."""
    content = body.encode() if isinstance(body, str) else body
    given = {"content-length": str(len(content)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + content


class Web:
    """Answers each request by `answering`, then closes. `url` is where; `connections` counts who connected."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self.requests: list[Seen] = []
        self.connections = 0
        self.host, self.port, self.scheme = "", 0, "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            seen = await _read(reader)
            self.requests.append(seen)
            answer = self._answering(seen)
            if isinstance(answer, bytes):
                writer.write(answer)
            elif isinstance(answer, AsyncIterator):
                async for piece in answer:
                    writer.write(piece)
                    await writer.drain()
            else:
                writer.write(await answer)
            await writer.drain()
        except (OSError, EOFError):
            pass  # who asked has left
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {}
    for line in head[1:-2]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method, target, headers, body)


@contextlib.asynccontextmanager
async def web(
    answering: Answering | Mapping[str, bytes], host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Web]:
    """A server for as long as the block; a mapping answers by target, and 404 else."""
    answers = answering
    found = Web(answers if callable(answers) else lambda seen: answers.get(seen.target, said("no", 404)))
    server = await asyncio.start_server(found.serve, host, 0, ssl=tls)
    found.host, found.port = server.sockets[0].getsockname()[:2]
    found.scheme = "https" if tls else "http"
    async with server:
        yield found

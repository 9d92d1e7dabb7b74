"""A data listener between a client made of a bare socket and instances made of whatever a test needs."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from bema.core.errors import NotFound
from bema.core.instance import Instance
from bema.core.limits import DEFAULTS, LIMITS
from bema.core.naming import new_instance_id
from bema.deploy.model.deployment import Activation
from bema.gateway.http.exchange import Exchange
from bema.gateway.http.listener import DataListener
from bema.gateway.routing.choice import InstanceRoute
from bema.gateway.routing.table import RoutingTable
from bema.runtime.discovery.memory import MemoryDiscovery

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def unknown(deployment: str, wait: float) -> Activation:
    raise NotFound(f"no deployment {deployment}")


async def no_door(exchange: Exchange, route: InstanceRoute) -> None:
    raise NotFound("no service here")


class Gate:
    """A listener on a free port, and the discovery it looks in."""

    def __init__(self, listener: DataListener, discovery: MemoryDiscovery, port: int) -> None:
        self.listener = listener
        self.discovery = discovery
        self.port = port
        self.servers: list[asyncio.Server] = []

    def show(self, address: str, deployment: str = "", protocol: str = "http") -> tuple[str, int]:
        """Put an instance's record; returns deployment and instance."""
        deployment = deployment or str(uuid.uuid4())
        instance = Instance(
            id=new_instance_id(), namespace="t", component="t", deployment=deployment, addresses={protocol: (address,)}
        )
        self.discovery.put(instance)
        return deployment, instance.id

    async def serve(self, handler: Handler, deployment: str = "") -> str:
        """An instance that is `handler` on a Unix socket; returns the deployment's path."""
        path = tempfile.mktemp(prefix="bema-gate-", suffix=".sock")

        async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handler(reader, writer)
                await reader.read()
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        self.servers.append(await asyncio.start_unix_server(closing, path))
        return f"/gateway/{self.show(f'unix:{path}', deployment)[0]}"

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=2**20))

    async def ask(self, raw: bytes) -> Answer:
        """One request on a connection of its own."""
        async with await self.client() as client:
            client.send(raw)
            return await client.answer()

    async def get(self, path: str, *headers: str, method: str = "GET") -> Answer:
        return await self.ask(request(path, *headers, method=method))


def request(path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + body


class Answer:
    def __init__(self, head: bytes, body: bytes) -> None:
        line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        self.head = head
        self.status = int(line.split(" ")[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.body = body

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


class Client:
    """A bare connection: what is sent is what is written, and answers are read one at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.writer.close()

    def send(self, raw: bytes) -> None:
        self.writer.write(raw)

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)

    async def answer(self, method: str = "GET") -> Answer:
        answer = Answer(await self.head(), b"")
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        if answer.headers.get("transfer-encoding") == "chunked":
            answer.body = b"".join([piece async for piece in self.chunks()])
        elif "content-length" in answer.headers:
            answer.body = await asyncio.wait_for(self.reader.readexactly(int(answer.headers["content-length"])), 10)
        else:
            answer.body = await asyncio.wait_for(self.reader.read(), 10)
        return answer

    async def chunks(self) -> AsyncIterator[bytes]:
        """The payload of each chunk; the last line of all is read too."""
        while size := int(await asyncio.wait_for(self.reader.readline(), 10), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        while await asyncio.wait_for(self.reader.readline(), 10) != b"\r\n":
            pass

    async def closed(self, within: float = 5) -> bool:
        """Whether the connection ends within that many seconds, whatever is still read from it."""
        try:
            async with asyncio.timeout(within):
                while await self.reader.read(65536):
                    pass
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True
        return True


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A request as an instance reads it, with a declared body."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return head, await reader.readexactly(int(value))
    return head, b""


async def says_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An instance that answers `ok` to everything."""
    while True:
        await read_request(reader)
        writer.write(OK)


async def until(holds: Callable[[], Any], seconds: float = 5.0) -> None:
    """Poll what the other side of a socket brings about; fails when it does not come."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def gate(activate: Any = unknown, door: Any = no_door, **limits: Any) -> AsyncIterator[Gate]:
    discovery = MemoryDiscovery()
    table = RoutingTable(await discovery.view())
    listener = DataListener(
        table, activate, door, limits=DEFAULTS.but(**{n if n in LIMITS else f"http_{n}": v for n, v in limits.items()})
    )
    bound = socket.create_server(("127.0.0.1", 0))
    await listener.listen(bound)
    made = Gate(listener, discovery, bound.getsockname()[1])
    try:
        yield made
    finally:
        await listener.drain(0)
        for server in made.servers:
            server.close()
            for bound_socket in server.sockets:
                os.unlink(bound_socket.getsockname())

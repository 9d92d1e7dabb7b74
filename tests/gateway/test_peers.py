"""Clients and servers that we did not write, with the data listener between them: uvicorn, httpx2 and curl."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route

from bema.core.limits import DEFAULTS
from bema.gateway.server import Embedded
from tests.gateway.gate import Gate, gate
from tests.gateway.http.test_listener import run
from tests.tools import tool

pytestmark = pytest.mark.usefixtures("every_loop")


async def echo(request: Request) -> PlainTextResponse:
    digest = hashlib.sha256()
    size = 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    return PlainTextResponse(f"{request.method} {size} {digest.hexdigest()}")


async def go(request: Request) -> RedirectResponse:
    return RedirectResponse("/there", headers={"set-cookie": "a=1; Path=/"})


async def events(request: Request) -> StreamingResponse:
    async def ticks() -> AsyncIterator[str]:
        for n in range(3):
            yield f"data: {n}\n\n"

    return StreamingResponse(ticks(), media_type="text/event-stream")


async def large(request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(256):
            yield b"x" * 65_536

    return StreamingResponse(pieces())


async def said(request: Request) -> PlainTextResponse:
    names = ("host", "x-forwarded-host", "x-forwarded-prefix", "x-forwarded-for", "origin", "authorization")
    return PlainTextResponse("\n".join(f"{name}: {request.headers.get(name)}" for name in names))


async def inside(request: Request) -> PlainTextResponse:
    return PlainTextResponse("inside")


APP = Starlette(
    routes=[
        Route("/echo", echo, methods=["POST", "PUT", "PATCH", "DELETE"]),
        Route("/go", go),
        Route("/there", inside),
        Route("/events", events),
        Route("/large", large),
        Route("/said", said),
        Mount("/mount", routes=[Route("/", inside)]),
    ]
)


@asynccontextmanager
async def deployed(tmp_path) -> AsyncIterator[tuple[Gate, str]]:
    """The app on uvicorn on a Unix socket, and its URL at a listener."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "app.sock"))
    server = Embedded(APP, DEFAULTS.but(drain=1))
    serving = asyncio.create_task(server.serve([listener]))
    await server.accepting.wait()
    try:
        async with gate() as g:
            deployment, _ = g.show(f"unix:{tmp_path}/app.sock")
            yield g, f"http://127.0.0.1:{g.port}/gateway/{deployment}"
    finally:
        server.should_exit = True
        await serving
        with contextlib.suppress(OSError):
            listener.close()


def client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(verify=False, follow_redirects=True)


async def curl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        tool("curl"), "-sS", "--max-time", "20", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


def test_an_app_learns_where_it_is_and_not_where_it_is_not(tmp_path):
    async def story():
        async with deployed(tmp_path) as (g, url), client() as c:
            answer = await c.get(
                f"{url}/said", headers={"origin": f"http://127.0.0.1:{g.port}", "authorization": "Bearer x"}
            )
            assert answer.text.splitlines() == [
                f"host: 127.0.0.1:{g.port}",
                f"x-forwarded-host: 127.0.0.1:{g.port}",
                f"x-forwarded-prefix: {url.partition(str(g.port))[2]}",
                "x-forwarded-for: 127.0.0.1",
                "origin: None",
                "authorization: Bearer x",
            ]

    run(story())


def test_redirects_and_cookies_stay_under_the_prefix(tmp_path):
    async def story():
        async with deployed(tmp_path) as (_, url), client() as c:
            answer = await c.get(f"{url}/go")
            assert (answer.text, str(answer.url)) == ("inside", f"{url}/there")
            assert [cookie.path for cookie in c.cookies.jar] == [f"{httpx2.URL(url).path}/"]
            assert (await c.get(f"{url}/mount")).text == "inside"

    run(story())


@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_uploads_arrive_whole(tmp_path, size, chunked):
    async def story():
        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

        async def pieces() -> AsyncIterator[bytes]:
            for begin in range(0, size, 70_001):
                yield body[begin : begin + 70_001]

        async with deployed(tmp_path) as (_, url), client() as c:
            answer = await c.post(f"{url}/echo", content=pieces() if chunked else body)
            assert answer.text == f"POST {size} {hashlib.sha256(body).hexdigest()}"

    run(story())


def test_a_large_answer_comes_whole_and_many_at_once(tmp_path):
    async def story():
        async with deployed(tmp_path) as (g, url), client() as c:
            answers = await asyncio.gather(*(c.get(f"{url}/large") for _ in range(4)))
            assert [len(answer.content) for answer in answers] == [2**24] * 4
            (activity,) = g.listener.activities.all()
            assert activity.in_flight == 0

    run(story())


def test_curl(tmp_path):
    async def story():
        upload = tmp_path / "upload"
        upload.write_bytes(b"y" * 2_000_000)
        digest = hashlib.sha256(upload.read_bytes()).hexdigest()
        async with deployed(tmp_path) as (_, url):
            assert await curl("-N", f"{url}/events") == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
            assert await curl("-H", "Expect: 100-continue", "-T", str(upload), f"{url}/echo") == f"PUT 2000000 {digest}"
            assert (
                await curl("-H", "Transfer-Encoding: chunked", "-T", str(upload), f"{url}/echo")
                == f"PUT 2000000 {digest}"
            )
            assert await curl("-L", f"{url}/go") == "inside"
            assert (await curl("-I", f"{url}/there")).startswith("HTTP/1.1 200 OK\r\n")
            assert await curl("--http1.0", f"{url}/there") == "inside"
            assert await curl("-X", "DELETE", f"{url}/echo") == f"DELETE 0 {hashlib.sha256().hexdigest()}"
            assert await curl("--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", f"{url}/../../x") == "404"

    run(story())

"""What a script holds is told by looking at it; what is none of the known kinds is refused by name."""

import asyncio
from typing import Any

import flask
import pytest
from fastapi import FastAPI
from mcp.server import MCPServer

from bema.core.errors import BadDeclaration
from bema.sdk.apps import adapt
from bema.sdk.apps.asgi import behind_prefix
from bema.wire.module.handshake import EndpointAnnounce


async def coroutine_app(scope, receive, send): ...


def wrapping_app(scope, receive, send):
    return coroutine_app(scope, receive, send)


def wsgi_app(environ, start_response):
    return [b""]


class Callable3:
    async def __call__(self, scope, receive, send): ...


class WithMiddleware:
    def __call__(self, environ, start_response, *, debug=False): ...


@pytest.mark.parametrize(
    ("target", "kind", "lifespan"),
    [
        (FastAPI(), "asgi", "auto"),
        (coroutine_app, "asgi", "auto"),
        (wrapping_app, "asgi", "auto"),
        (Callable3(), "asgi", "auto"),
        (flask.Flask("x"), "wsgi", "off"),
        (wsgi_app, "wsgi", "off"),
        (WithMiddleware(), "wsgi", "off"),
        (MCPServer("x"), "mcp", "on"),
    ],
)
def test_its_kind_is_told(target, kind, lifespan):
    found = adapt(target, "app")
    assert (found.kind, found.lifespan) == (kind, lifespan)


def test_routes_are_announced_where_the_app_tells_them():
    app = FastAPI(openapi_url=None)
    app.get("/a")(lambda: 1)
    app.post("/b/{id}")(lambda id: id)
    assert adapt(app, "app").endpoints == [EndpointAnnounce("/a", ["GET"]), EndpointAnnounce("/b/{id}", ["POST"])]
    assert adapt(coroutine_app, "app").endpoints == [EndpointAnnounce("/", ["*"])]


def test_fastmcp_is_told_by_the_method_that_gives_its_app():
    class FastMCP:
        def http_app(self, path):
            assert path == "/mcp"
            return coroutine_app

    FastMCP.__module__ = "fastmcp.server.server"
    found = adapt(FastMCP(), "mcp")
    assert found.kind == "mcp"
    assert [endpoint.path for endpoint in found.endpoints] == ["/mcp"]


@pytest.mark.parametrize(
    "target", [None, 7, {}, "app", object(), Callable3, FastAPI, lambda: None, lambda scope: None, print]
)
def test_anything_else_is_refused_by_name(target):
    with pytest.raises(BadDeclaration, match=f"'app' of the script is a .*{type(target).__name__}.*: neither"):
        adapt(target, "app")


def seen_by_app(scope: dict[str, Any]) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    async def app(scope, receive, send):
        seen.append(scope)

    asyncio.run(behind_prefix(app)({"type": "http", "headers": [], **scope}, None, None))  # type: ignore[arg-type]
    return seen[0]


def test_the_prefix_becomes_the_root_path_which_the_path_includes():
    scope = seen_by_app(
        {"path": "/a b", "raw_path": b"/a%20b", "headers": [(b"x-forwarded-prefix", b"/gateway/7/")]},
    )
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (
        "/gateway/7",
        "/gateway/7/a b",
        b"/gateway/7/a%20b",
    )


def test_without_a_prefix_nothing_changes():
    assert seen_by_app({"path": "/a"}) == {"type": "http", "headers": [], "path": "/a"}
    assert seen_by_app({"path": "/a", "headers": [(b"x-forwarded-prefix", b"/")]})["path"] == "/a"

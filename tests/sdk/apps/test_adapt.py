"""What a script holds is told by looking at it; what is none of the known kinds is refused by name."""

import flask
import pytest
from fastapi import FastAPI
from mcp.server import MCPServer

from bema.core.errors import BadDeclaration
from bema.sdk.apps import adapt
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

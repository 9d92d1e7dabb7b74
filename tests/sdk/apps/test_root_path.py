"""Each framework finds its routes below the gateway's prefix, and makes links that hold."""

import asyncio
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from bema.sdk.apps import adapt
from bema.sdk.apps.root_path import behind_prefix

PREFIX = "/faas/python/7"


def seen_by_app(scope: dict[str, Any]) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    async def app(scope, receive, send):
        seen.append(scope)

    asyncio.run(behind_prefix(app)({"type": "http", "headers": [], **scope}, None, None))  # type: ignore[arg-type]
    return seen[0]


def asked(app: Any, path: str) -> str:
    async def ask() -> str:
        transport = httpx2.ASGITransport(behind_prefix(adapt(app, "app").app))
        async with httpx2.AsyncClient(transport=transport, base_url="http://host") as client:
            answer = await client.get(path, headers={"x-forwarded-prefix": PREFIX})
        return (
            answer.text if answer.status_code == 200 else f"{answer.status_code} {answer.headers.get('location', '')}"
        )

    return asyncio.run(ask())


def test_an_app_is_given_the_path_that_it_routes_by():
    scope = seen_by_app(
        {"path": "/a b", "raw_path": b"/a%20b", "headers": [(b"x-forwarded-prefix", b"/gateway/7/")]},
    )
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/gateway/7", "/a b", b"/a%20b")


def test_without_a_prefix_nothing_changes():
    assert seen_by_app({"path": "/a"}) == {"type": "http", "headers": [], "path": "/a"}
    assert seen_by_app({"path": "/a", "headers": [(b"x-forwarded-prefix", b"/")]})["path"] == "/a"


def fastapi() -> FastAPI:
    app, below = FastAPI(), FastAPI()

    @app.get("/hello")
    def hello() -> str:
        return "hello"

    @app.get("/link")
    def link(request: Request) -> str:
        return str(request.url_for("hello"))

    @below.get("/hello")
    def inner(request: Request) -> str:
        return str(request.url)

    app.mount("/below", below)
    app.mount("/deep", Mount("/er", routes=[Route("/", lambda _: PlainTextResponse("deep"))]))
    return app


@pytest.mark.parametrize("app", [fastapi(), CORSMiddleware(fastapi())], ids=["bare", "wrapped"])
def test_a_starlette_app_finds_routes_mounts_and_links(app):
    assert asked(app, "/hello") == '"hello"'
    assert asked(app, "/link") == f'"http://host{PREFIX}/hello"'
    assert asked(app, "/below/hello") == f'"http://host{PREFIX}/below/hello"'
    assert asked(app, "/deep/er/") == "deep"
    assert f"{PREFIX}/openapi.json" in asked(app, "/docs")
    assert asked(app, "/hello/") == f"307 http://host{PREFIX}/hello"


def test_a_wsgi_app_sees_the_prefix_as_script_name():
    app = flask.Flask("given")

    @app.get("/hello")
    def hello() -> str:
        return " ".join((flask.request.script_root, flask.request.path, flask.url_for("hello")))

    assert asked(app, "/hello") == f"{PREFIX} /hello {PREFIX}/hello"


def test_a_path_that_begins_like_the_prefix_is_the_apps_own():
    app = flask.Flask("given")

    @app.get(f"{PREFIX}/x")
    def own() -> str:
        return "own"

    assert asked(app, f"{PREFIX}/x") == "own"

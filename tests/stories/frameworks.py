"""One small program per framework, as its documentation writes it, and what is asked of it through the gateway.

Each answers `hello` at /hello, its cookie's value at /cookie after /login has set `seen=1` for path `/`, and leads /old to /hello.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx2

from tests.stories.harness import Platform

__all__ = ["HERE", "MCP", "PROGRAMS", "Program", "ask"]


@dataclass(frozen=True)
class Program:
    requirements: tuple[str, ...]
    code: str

    def script(self) -> str:
        block = ["# /// script", f"# dependencies = {list(self.requirements)}".replace("'", '"'), "# ///"]
        return "\n".join(block) + "\n" + self.code


def ask(platform: Platform, name: str) -> None:
    """Deploy the program and ask for what every one of them answers."""
    made = platform.deploy(name.replace(".", "-"), PROGRAMS[name].script(), seconds=120)
    with httpx2.Client(base_url=made["url"], timeout=30, trust_env=False) as client:
        below = httpx2.URL(made["url"]).path.rstrip("/")

        def get(path: str) -> httpx2.Response:
            return client.get(f"{made['url'].rstrip('/')}{path}")

        hello = get("/hello")
        assert (hello.status_code, hello.text.strip('"')) == (200, "hello"), f"{name}: {hello.status_code} {hello.text}"
        led = get("/old")
        assert led.is_redirect, f"{name}: /old gave {led.status_code}"
        assert httpx2.URL(led.headers["location"]).path == f"{below}/hello", f"{name}: {led.headers['location']}"
        assert f"{below}" in get("/login").headers["set-cookie"], name
        assert get("/cookie").text.strip('"') == "1", name
        assert get("/nowhere").status_code == 404, name


_FASTAPI = """
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

app = FastAPI()

@app.get("/hello")
def hello():
    return "hello"

@app.get("/old")
def old(request: Request):
    return RedirectResponse(request.url_for("hello"))

@app.get("/login")
def login(response: Response):
    response.set_cookie("seen", "1")

@app.get("/cookie")
def cookie(request: Request):
    return request.cookies.get("seen")
"""

_FLASK = """
import flask

app = flask.Flask(__name__)

@app.get("/hello")
def hello():
    return "hello"

@app.get("/old")
def old():
    return flask.redirect(flask.url_for("hello"))

@app.get("/login")
def login():
    answer = flask.make_response("in")
    answer.set_cookie("seen", "1")
    return answer

@app.get("/cookie")
def cookie():
    return flask.request.cookies.get("seen")
"""

_HTTP_SERVER = """
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        match self.path:
            case "/hello":
                self.answer(200, "hello")
            case "/old":
                self.answer(302, "", Location="/hello")
            case "/login":
                self.answer(200, "in", **{"Set-Cookie": "seen=1; Path=/"})
            case "/cookie":
                self.answer(200, self.headers["cookie"].partition("=")[2])
            case _:
                self.answer(404, "")

    def answer(self, status, text, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

_STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route

async def hello(request):
    return PlainTextResponse("hello")

async def old(request):
    return RedirectResponse(request.url_for("hello"))

async def login(request):
    answer = PlainTextResponse("in")
    answer.set_cookie("seen", "1")
    return answer

async def cookie(request):
    return PlainTextResponse(request.cookies["seen"])

app = Starlette(routes=[
    Route("/hello", hello), Route("/old", old),
    Mount("/", routes=[Route("/login", login), Route("/cookie", cookie)]),
])
"""

_LITESTAR = """
from litestar import Litestar, Request, Response, get
from litestar.response import Redirect

@get("/hello")
async def hello() -> str:
    return "hello"

@get("/old")
async def old() -> Redirect:
    return Redirect("/hello")

@get("/login")
async def login() -> Response[str]:
    answer = Response("in")
    answer.set_cookie(key="seen", value="1")
    return answer

@get("/cookie")
async def cookie(request: Request) -> str:
    return request.cookies["seen"]

app = Litestar([hello, old, login, cookie])
"""

_QUART = """
from quart import Quart, make_response, redirect, request, url_for

app = Quart(__name__)

@app.get("/hello")
async def hello():
    return "hello"

@app.get("/old")
async def old():
    return redirect(url_for("hello"))

@app.get("/login")
async def login():
    answer = await make_response("in")
    answer.set_cookie("seen", "1")
    return answer

@app.get("/cookie")
async def cookie():
    return request.cookies["seen"]
"""

_SANIC = """
from sanic import Sanic, redirect, text

app = Sanic("given")

@app.get("/hello")
async def hello(request):
    return text("hello")

@app.get("/old")
async def old(request):
    return redirect(app.url_for("hello"))

@app.get("/login")
async def login(request):
    answer = text("in")
    answer.add_cookie("seen", "1", secure=False)
    return answer

@app.get("/cookie")
async def cookie(request):
    return text(request.cookies.get("seen"))
"""

_BLACKSHEEP = """
from blacksheep import Application, Cookie, Request, get, redirect, text

app = Application()

@get("/hello")
def hello():
    return text("hello")

@get("/old")
def old():
    return redirect("/hello")

@get("/login")
def login():
    answer = text("in")
    answer.set_cookie(Cookie("seen", "1", path="/"))
    return answer

@get("/cookie")
def cookie(request: Request):
    return text(request.cookies["seen"])
"""

_FALCON = """
import falcon.asgi

class Hello:
    async def on_get(self, request, response):
        response.text = "hello"

class Old:
    async def on_get(self, request, response):
        raise falcon.HTTPFound(request.prefix + "/hello")

class Login:
    async def on_get(self, request, response):
        response.set_cookie("seen", "1", path="/", secure=False)

class Cookie:
    async def on_get(self, request, response):
        response.text = request.cookies["seen"]

app = falcon.asgi.App()
for path, resource in {"/hello": Hello(), "/old": Old(), "/login": Login(), "/cookie": Cookie()}.items():
    app.add_route(path, resource)
"""

_DJANGO = """
from django.conf import settings

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="given")

from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.shortcuts import redirect
from django.urls import path

def hello(request):
    return HttpResponse("hello")

def old(request):
    return redirect("hello")

def login(request):
    answer = HttpResponse("in")
    answer.set_cookie("seen", "1")
    return answer

def cookie(request):
    return HttpResponse(request.COOKIES["seen"])

urlpatterns = [
    path("hello", hello, name="hello"), path("old", old), path("login", login), path("cookie", cookie)
]
app = get_asgi_application()
"""

_SOCKETIO = """
import socketio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Route

async def hello(request):
    return PlainTextResponse("hello")

async def old(request):
    return RedirectResponse(request.url_for("hello"))

async def login(request):
    answer = PlainTextResponse("in")
    answer.set_cookie("seen", "1")
    return answer

async def cookie(request):
    return PlainTextResponse(request.cookies["seen"])

web = Starlette(routes=[
    Route("/hello", hello), Route("/old", old), Route("/login", login), Route("/cookie", cookie)
])
app = socketio.ASGIApp(socketio.AsyncServer(async_mode="asgi"), web)
"""

_FASTHTML = """
from fasthtml.common import fast_app
from starlette.responses import PlainTextResponse

app, rt = fast_app()

@rt("/hello")
def get():
    return PlainTextResponse("hello")

@rt("/old")
def get():
    return PlainTextResponse("", status_code=303, headers={"location": "/hello"})

@rt("/login")
def get():
    answer = PlainTextResponse("in")
    answer.set_cookie("seen", "1")
    return answer

@rt("/cookie")
def get(request):
    return PlainTextResponse(request.cookies["seen"])
"""

_AIOHTTP = """
from aiohttp import web

routes = web.RouteTableDef()

@routes.get("/hello")
async def hello(request):
    return web.Response(text="hello")

@routes.get("/old")
async def old(request):
    raise web.HTTPFound("/hello")

@routes.get("/login")
async def login(request):
    answer = web.Response(text="in")
    answer.set_cookie("seen", "1")
    return answer

@routes.get("/cookie")
async def cookie(request):
    return web.Response(text=request.cookies["seen"])

app = web.Application()
app.add_routes(routes)

if __name__ == "__main__":
    web.run_app(app)
"""

_DASH = """
import dash
import flask

app = dash.Dash(__name__)
app.layout = dash.html.Div("hello")

@app.server.get("/hello")
def hello():
    return "hello"

@app.server.get("/old")
def old():
    return flask.redirect(flask.url_for("hello"))

@app.server.get("/login")
def login():
    answer = flask.make_response("in")
    answer.set_cookie("seen", "1")
    return answer

@app.server.get("/cookie")
def cookie():
    return flask.request.cookies.get("seen")

@app.server.get("/nowhere")
def nowhere():
    flask.abort(404)  # Dash shows its page at every other path

if __name__ == "__main__":
    app.run(debug=True)
"""

_MCP = """
import mcp.types as types
from mcp.server.lowlevel import Server

app = Server("given")

@app.list_tools()
async def list_tools():
    return [types.Tool(name="hello", description="", inputSchema={"type": "object"})]

@app.call_tool()
async def call_tool(name, arguments):
    return [types.TextContent(type="text", text="hello")]
"""

PROGRAMS = {
    "aiohttp": Program(("aiohttp",), _AIOHTTP),
    "dash": Program(("dash",), _DASH),
    "fastapi": Program(("fastapi",), _FASTAPI),
    "fastapi-0.100": Program(("fastapi==0.100.0",), _FASTAPI),
    "flask": Program(("flask",), _FLASK),
    "http-server": Program((), _HTTP_SERVER),
    "starlette": Program(("starlette",), _STARLETTE),
    "litestar": Program(("litestar",), _LITESTAR),
    "quart": Program(("quart",), _QUART),
    "sanic": Program(("sanic",), _SANIC),
    "blacksheep": Program(("blacksheep",), _BLACKSHEEP),
    "falcon": Program(("falcon",), _FALCON),
    "django": Program(("django",), _DJANGO),
    "socketio": Program(("python-socketio", "starlette"), _SOCKETIO),
    "fasthtml": Program(("python-fasthtml",), _FASTHTML),
}

HERE = ("fastapi", "fastapi-0.100", "flask", "aiohttp", "http-server")
"""Those that every run asks; `dev.py soak frameworks` asks all."""

MCP = Program(("mcp<2",), _MCP)
"""A server without an app of its own: it answers no paths, but sessions."""

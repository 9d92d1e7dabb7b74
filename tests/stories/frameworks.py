"""One small program per framework, as its documentation writes it, and what is asked of it through the gateway.

Each answers `hello` at /hello, its cookie's value at /cookie after /login has set `seen=1` for path `/`, and leads /old to /hello;
who speaks WebSocket says what it hears at /socket. Those that have pages of their own are asked for these, MCP servers for a tool.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx2
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from tests.stories.harness import Platform
from tests.stories.websocket import WebSocket

__all__ = ["HERE", "PROGRAMS", "Program", "ask"]


@dataclass(frozen=True)
class Program:
    """`echo` is the path of its WebSocket, `pages` what is asked instead of the paths of all, `tool` the tool of a server."""

    requirements: tuple[str, ...]
    code: str
    echo: str = ""
    pages: tuple[str, ...] = ()
    tool: str = ""

    def script(self) -> str:
        block = ["# /// script", f"# dependencies = {list(self.requirements)}".replace("'", '"'), "# ///"]
        return "\n".join(block) + "\n" + self.code


def ask(platform: Platform, name: str) -> None:
    """Deploy the program, ask for what it should answer, and remove it: another may need its port."""
    program = PROGRAMS[name]
    made = platform.deploy(name.replace(".", "-"), program.script(), seconds=180)
    url = made["url"].rstrip("/")
    try:
        if program.tool:
            assert "hello" in asyncio.run(_called(f"{url}/mcp", program.tool)), name
            return
        with httpx2.Client(timeout=60, trust_env=False) as client:
            for path in program.pages:
                page = client.get(f"{url}{path}")
                assert page.status_code == 200, f"{name}: {path} gave {page.status_code} {page.text}"
            if not program.pages:
                _paths(client, url, name)
        if program.echo:
            _echoes(url, program.echo, name)
    finally:
        with platform.http() as api:
            api.delete(f"/faas/python/{made['id']}").raise_for_status()


def _paths(client: httpx2.Client, url: str, name: str) -> None:
    below = httpx2.URL(url).path
    hello = client.get(f"{url}/hello")
    assert (hello.status_code, hello.text.strip('"')) == (200, "hello"), f"{name}: {hello.status_code} {hello.text}"
    led = client.get(f"{url}/old")
    assert led.is_redirect, f"{name}: /old gave {led.status_code}"
    assert httpx2.URL(led.headers["location"]).path == f"{below}/hello", f"{name}: {led.headers['location']}"
    assert f"{below}" in client.get(f"{url}/login").headers["set-cookie"], name
    assert client.get(f"{url}/cookie").text.strip('"') == "1", name
    assert client.get(f"{url}/nowhere").status_code == 404, name


def _echoes(url: str, path: str, name: str) -> None:
    with WebSocket(f"{url}{path}") as opened:
        assert opened.status == 101, f"{name}: {path} gave {opened.status}"
        if "transport=websocket" in path:  # Engine.IO says what it offers, then answers who joins a namespace
            assert opened.hear().startswith("0{"), name
            opened.say("40")
            assert opened.hear().startswith("40{"), name
            return
        opened.say("hi")
        assert opened.hear() == "hi", name


async def _called(url: str, tool: str) -> str:
    async with streamable_http_client(url) as (read, write, *_), ClientSession(read, write) as session:
        await session.initialize()
        return str((await session.call_tool(tool, {})).content)


_FASTAPI = """
from fastapi import FastAPI, Request, Response, WebSocket
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

@app.websocket("/socket")
async def echo(socket: WebSocket):
    await socket.accept()
    await socket.send_text(await socket.receive_text())
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
from starlette.routing import Mount, Route, WebSocketRoute

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

async def echo(socket):
    await socket.accept()
    await socket.send_text(await socket.receive_text())

app = Starlette(routes=[
    Route("/hello", hello), Route("/old", old), WebSocketRoute("/socket", echo),
    Mount("/", routes=[Route("/login", login), Route("/cookie", cookie)]),
])
"""

_LITESTAR = """
from litestar import Litestar, Request, Response, get, websocket_listener
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

@websocket_listener("/socket")
async def echo(data: str) -> str:
    return data

app = Litestar([hello, old, login, cookie, echo])
"""

_QUART = """
from quart import Quart, make_response, redirect, request, url_for, websocket

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

@app.websocket("/socket")
async def echo():
    await websocket.send(await websocket.receive())
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

@app.websocket("/socket")
async def echo(request, socket):
    await socket.send(await socket.recv())
"""

_BLACKSHEEP = """
from blacksheep import Application, Cookie, Request, WebSocket, get, redirect, text, ws

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

@ws("/socket")
async def echo(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
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

class Echo:
    async def on_websocket(self, request, socket):
        await socket.accept()
        await socket.send_text(await socket.receive_text())

app = falcon.asgi.App()
app.add_route("/socket", Echo())
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

@routes.get("/socket")
async def echo(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str(await socket.receive_str())
    return socket

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

_FASTMCP = """
from fastmcp import FastMCP

mcp = FastMCP("given")

@mcp.tool
def hello() -> str:
    return "hello"

if __name__ == "__main__":
    mcp.run()
"""

_MOUNTED = """
from fastmcp import FastMCP

sub = FastMCP("sub")

@sub.tool
def hello() -> str:
    return "hello"

main = FastMCP("main")
main.mount(sub, namespace="sub")

if __name__ == "__main__":
    main.run()
"""

_FALCON_WSGI = """
import falcon

class Hello:
    def on_get(self, request, response):
        response.text = "hello"

class Old:
    def on_get(self, request, response):
        raise falcon.HTTPFound(request.prefix + "/hello")

class Login:
    def on_get(self, request, response):
        response.set_cookie("seen", "1", path="/", secure=False)

class Cookie:
    def on_get(self, request, response):
        response.text = request.cookies["seen"]

app = falcon.App()
for path, resource in {"/hello": Hello(), "/old": Old(), "/login": Login(), "/cookie": Cookie()}.items():
    app.add_route(path, resource)

if __name__ == "__main__":
    from wsgiref.simple_server import make_server

    with make_server("", 8000, app) as httpd:
        httpd.serve_forever()
"""

_BOTTLE = """
import os
from bottle import redirect, request, response, route, run

@route("/hello")
def hello():
    return "hello"

@route("/old")
def old():
    redirect("/hello")

@route("/login")
def login():
    response.set_cookie("seen", "1", path="/")
    return "in"

@route("/cookie")
def cookie():
    return request.get_cookie("seen")

run(host="localhost", port=int(os.environ["PORT"]))
"""

_TORNADO = """
import asyncio
import os

import tornado.web
import tornado.websocket

class Hello(tornado.web.RequestHandler):
    def get(self):
        self.write("hello")

class Old(tornado.web.RequestHandler):
    def get(self):
        self.redirect("/hello")

class Login(tornado.web.RequestHandler):
    def get(self):
        self.set_cookie("seen", "1")
        self.write("in")

class Cookie(tornado.web.RequestHandler):
    def get(self):
        self.write(self.get_cookie("seen"))

class Echo(tornado.websocket.WebSocketHandler):
    def on_message(self, message):
        self.write_message(message)

def make_app():
    return tornado.web.Application([
        ("/hello", Hello), ("/old", Old), ("/login", Login), ("/cookie", Cookie), ("/socket", Echo),
    ], debug=True)

async def main():
    app = make_app()
    app.listen(int(os.environ["PORT"]))
    await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(main())
"""

_MARIMO = """
import marimo

app = marimo.App()

@app.cell
def _():
    import marimo as mo
    mo.md("hello")
    return

if __name__ == "__main__":
    app.run()
"""

_NICEGUI = """
from nicegui import ui

ui.label("hello")

if __name__ in {"__main__", "__mp_main__"}:
    ui.run()
"""

_GRADIO = """
import gradio as gr

def greet(name):
    return "hello " + name

demo = gr.Interface(fn=greet, inputs="text", outputs="text")
demo.launch()
"""

_WEBSOCKETS = """
import asyncio
import http
import os

from websockets.asyncio.server import serve

async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)

def health(connection, request):
    if request.path == "/healthz":
        return connection.respond(http.HTTPStatus.OK, "OK")

async def main():
    async with serve(echo, "", int(os.environ["PORT"]), process_request=health) as server:
        await server.serve_forever()

asyncio.run(main())
"""

_GUARDED = """
if __name__ == "__main__":
    import uvicorn

    uvicorn.run("main:app", port=5000, log_level="info", reload=True)
"""

_UNGUARDED = """
import uvicorn

uvicorn.run(app, port=5000, log_level="info")
"""

_MADE = (
    "def create_app():\n    "
    + _FASTAPI.strip().replace("\n", "\n    ")
    + """
    return app

if __name__ == "__main__":
    import uvicorn

    uvicorn.run("main:create_app", factory=True)
"""
)

_POOL = """
import concurrent.futures
import multiprocessing

def said(word):
    return word

pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
"""

_DEBUG = """
app.run(debug=True)
"""

_IO = "/socket.io/?EIO=4&transport=websocket"

PROGRAMS = {
    "aiohttp": Program(("aiohttp",), _AIOHTTP, "/socket"),
    "blacksheep": Program(("blacksheep", "websockets"), _BLACKSHEEP, "/socket"),
    "bottle": Program(("bottle",), _BOTTLE),
    "dash": Program(("dash",), _DASH),
    "django": Program(("django",), _DJANGO),
    "falcon": Program(("falcon", "websockets"), _FALCON, "/socket"),
    "falcon-wsgi": Program(("falcon",), _FALCON_WSGI),
    "fastapi": Program(("fastapi", "websockets"), _FASTAPI, "/socket"),
    "fastapi-0.100": Program(("fastapi==0.100.0", "websockets"), _FASTAPI, "/socket"),
    "fastapi-factory": Program(("fastapi", "uvicorn"), _MADE),
    "fastapi-guarded": Program(("fastapi", "uvicorn[standard]"), _FASTAPI + _GUARDED, "/socket"),
    "fastapi-pool": Program(
        ("fastapi",), _POOL + _FASTAPI.replace('return "hello"', 'return pool.submit(said, "hello").result()')
    ),
    "fastapi-unguarded": Program(("fastapi", "uvicorn[standard]"), _FASTAPI + _UNGUARDED, "/socket"),
    "fasthtml": Program(("python-fasthtml",), _FASTHTML),
    "fastmcp": Program(("fastmcp",), _FASTMCP, tool="hello"),
    "fastmcp-mounted": Program(("fastmcp",), _MOUNTED, tool="sub_hello"),
    "flask": Program(("flask",), _FLASK),
    "flask-debug": Program(("flask",), _FLASK + _DEBUG),
    "gradio": Program(("gradio",), _GRADIO, pages=("/", "/config", "/gradio_api/info")),
    "http-server": Program((), _HTTP_SERVER),
    "litestar": Program(("litestar", "websockets"), _LITESTAR, "/socket"),
    "marimo": Program(("marimo",), _MARIMO, pages=("/",)),
    "mcp": Program(("mcp<2",), _MCP, tool="hello"),
    "nicegui": Program(("nicegui",), _NICEGUI, pages=("/",)),
    "quart": Program(("quart", "websockets"), _QUART, "/socket"),
    "sanic": Program(("sanic", "websockets"), _SANIC, "/socket"),
    "socketio": Program(("python-socketio", "starlette", "websockets"), _SOCKETIO, _IO),
    "starlette": Program(("starlette", "websockets"), _STARLETTE, "/socket"),
    "tornado": Program(("tornado",), _TORNADO, "/socket"),
    "websockets": Program(("websockets",), _WEBSOCKETS, "/socket", pages=("/healthz",)),
}

HERE = ("fastapi", "fastapi-0.100", "fastapi-factory", "flask", "aiohttp", "http-server", "mcp", "tornado")
"""Those that every run asks, about a quarter; `dev.py soak frameworks` asks all."""

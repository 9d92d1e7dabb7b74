"""The laws of Server: it takes what is of its kind, told by looking, and leaves everything else to others.

`make` gives a `Trial`: the server, and what makes an object of its kind that answers `GET /`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from bema.sdk.apps.http_app import HttpApp
from bema.testing.conformance.frame import Make, Suite

SUITE = Suite("server")


class ServerTrial(NamedTuple):
    server: Any
    app: Callable[[], Any]
    path: str = "/"


class Untouchable:
    """An object that must not be tried out."""

    def __init__(self) -> None:
        self.called = False

    def __call__(self) -> None:
        self.called = True


def nothing_to_serve(only: int) -> int:
    raise AssertionError("it was called")


@SUITE.law()
async def its_own_are_taken(make: Make) -> None:
    """An object of its kind becomes an app that says where it answers."""
    trial = await make()
    adapted = trial.server.adapt(trial.app())
    assert isinstance(adapted, HttpApp)
    assert callable(adapted.app)
    assert adapted.endpoints and all(one.path.startswith("/") for one in adapted.endpoints)
    assert adapted.kind in ("asgi", "wsgi", "mcp")
    assert adapted.lifespan in ("auto", "on", "off")


@SUITE.law()
async def others_are_left(make: Make) -> None:
    """What is of no kind of app is left, and none of it is called."""
    trial, untouchable = await make(), Untouchable()
    # Classes and functions are callable as well; calling one to find out would run user code.
    for other in (None, 42, "app", object(), int, Untouchable, nothing_to_serve, untouchable, asyncio):
        assert trial.server.adapt(other) is None, other
    assert not untouchable.called


@SUITE.law()
async def looking_twice_is_the_same(make: Make) -> None:
    """Looking twice at one object finds the same."""
    trial = await make()
    app = trial.app()
    first, again = trial.server.adapt(app), trial.server.adapt(app)
    assert (first.kind, first.endpoints, first.lifespan) == (again.kind, again.endpoints, again.lifespan)


@SUITE.law()
async def the_app_answers(make: Make) -> None:
    """The app answers an HTTP request with a head, a body and an end."""
    trial = await make()
    adapted = trial.server.adapt(trial.app())
    sent: list[dict[str, Any]] = []
    over = asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            over.set()

    async with Living(adapted):
        asked = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, Any]:
            if asked:
                return asked.pop()
            await over.wait()
            return {"type": "http.disconnect"}

        await adapted.app(_scope(trial.path), receive, send)
    assert [message["type"] for message in sent][:2] == ["http.response.start", "http.response.body"]
    assert over.is_set()


def _scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


class Living:
    """The app between its start-up and its shutdown, where it has them."""

    def __init__(self, adapted: HttpApp) -> None:
        self._adapted = adapted
        self._asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        if self._adapted.lifespan == "on":
            scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
            self._task = asyncio.ensure_future(self._adapted.app(scope, self._asked.get, self._said.put))
            await self._ask("startup")

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            await self._ask("shutdown")
            await self._task

    async def _ask(self, what: str) -> None:
        self._asked.put_nowait({"type": f"lifespan.{what}"})
        assert (await self._said.get())["type"] == f"lifespan.{what}.complete"

"""StatusPages: `/healthz`, `/readyz` and `/metrics` of a process, and its engine routes.

Laws: `/healthz` says whether the process should live on, also while it drains or its event loop is blocked; `/readyz` is 200
only while every service takes calls. The pages show no argument, answer or token. No request that a page of another origin
can make a browser send reaches an engine route.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from bema.core.errors import BemaError, Denied, Disconnected, Invalid, NotFound, TooLarge, as_json
from bema.core.limits import Limits
from bema.sdk.apps.http_app import Scope
from bema.sdk.status.engine_routes import EngineRequest, EngineRoute, EngineRoutes

TEXT, JSON = b"text/plain; version=0.0.4; charset=utf-8", b"application/json"

_LINGER = 1.0  # seconds

Receive = Callable[..., Any]


class StatusPage(NamedTuple):
    status: int
    body: bytes
    kind: bytes = JSON


class StatusPages:
    """The ASGI app of the pages. `told` gives the JSON of the health pages, `metrics` the page of that name."""

    def __init__(
        self,
        told: Callable[[], dict[str, Any]],
        metrics: Callable[[], str],
        routes: EngineRoutes,
        asking: EngineRequest,
        limits: Callable[[], Limits],
    ) -> None:
        self._told = told
        self._metrics = metrics
        self._routes = routes
        self._asking = asking
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Callable[..., Any]) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        route = self._routes.find(scope["path"])
        try:
            page = self._page(scope["path"]) if route is None else await self._asked(route, scope, receive)
        except BemaError as error:
            page = StatusPage(error.problem.http, msgspec.json.encode(as_json(error)))
        headers = [(b"content-type", page.kind), (b"cache-control", b"no-store")]
        # of HEAD, too: it is what GET would have
        headers += [(b"content-length", b"%d" % (len(page.body) + 1))]
        headers += [(b"allow", b"POST")] if page.status == 405 else []
        headers += [(b"connection", b"close")] if page.status in (408, 413) else []  # what is still sent is not read
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else page.body + b"\n"})

    def _page(self, path: str) -> StatusPage:
        if path == "/metrics":
            return StatusPage(200, self._metrics().encode().removesuffix(b"\n"), TEXT)
        told = self._told()
        found = {"/healthz": told["alive"], "/readyz": told["ready"]}.get(path)
        if found is None:
            posts = "".join(f", POST {each}" for each in self._routes.paths())
            raise NotFound(f"there is no {path}", fix=f"There are GET /healthz, /readyz and /metrics{posts}.")
        return StatusPage(200 if found else 503, msgspec.json.encode(told))

    async def _asked(self, route: EngineRoute, scope: Scope, receive: Receive) -> StatusPage:
        _refuse(scope)
        limits = self._limits()
        body = await _body(scope, receive, limits.http_body, limits.http_body_idle)
        return StatusPage(*await self._asking.ask(route, _object(body), limits.stalled))


def _refuse(scope: Scope) -> None:
    headers = dict(scope["headers"])
    if scope["method"] != "POST":
        raise Invalid(f"{scope['path']} takes POST, not {scope['method']}", code="method_not_allowed")
    if b"origin" in headers:
        # a browser sends Origin with every POST (Fetch standard), also to a name that was made to lead here (DNS rebinding)
        raise Denied("a page in a browser cannot ask this", code="forbidden", fix="Ask from a program.")
    if headers.get(b"content-type", b"").split(b";")[0].strip().lower() != JSON:
        raise Invalid("the content-type is not application/json", code="bad_request", fix="Send a JSON object as that.")


async def _body(scope: Scope, receive: Receive, most: int, idle: float) -> bytes:
    said = dict(scope["headers"]).get(b"content-length", b"0")
    expected = int(said) if said.isdigit() else 0
    body, more = bytearray(), True
    while more and max(expected, len(body)) <= most:
        try:
            async with asyncio.timeout(idle):
                message = await receive()
        except TimeoutError as error:
            raise Invalid("the body did not arrive in time", code="request_timeout") from error
        if message["type"] != "http.request":
            raise Disconnected("who asked has gone before the end of the body")
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if max(expected, len(body)) > most:
        if more:
            await _discard(receive, most)
        raise TooLarge(f"the body is larger than {most} bytes", fix="Send less, or raise the limit http_body.")
    return bytes(body)


async def _discard(receive: Receive, most: int) -> None:
    """Read on for a while, so that a client that still sends does not lose the answer to a reset (RFC 9112, section 9.6)."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER):
            while most > 0:
                message = await receive()
                most -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body, without keys for an empty one; `Invalid` (code `bad_request`) for anything else."""
    try:
        return msgspec.json.decode(body or b"{}", type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the body is not a JSON object: {error}", code="bad_request", fix="Send one.") from error

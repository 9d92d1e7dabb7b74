"""The control listener's app: the platform's own API over HTTP.

Law: a row that is not open is answered to a principal only: its handler cannot be called without one, and the door makes it
of the credential alone. Every failure leaves as the table's status with the same JSON as everywhere else.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bema.core.access import LOCAL_ADMIN, Credentials, Principal, permitted
from bema.core.call import CURRENT, Call, traceparent
from bema.core.errors import BemaError, Denied, Invalid, NotFound, TooLarge, Unavailable, as_json
from bema.core.limits import DEFAULTS
from bema.core.naming import is_uuid
from bema.core.version import VERSION
from bema.deploy.model.deployment import CreateRequest, DeploymentInfo
from bema.deploy.orchestrator.service import Orchestrator
from bema.gateway.control import metrics
from bema.gateway.control.operations import (
    OPERATIONS,
    CreateBody,
    DataFolders,
    Function,
    Functions,
    Operation,
    openapi,
    page,
)
from bema.gateway.routing.activity import Activities

__all__ = ["Control"]

_Answer = Callable[[Request], Awaitable[Response]]

_DECODE = msgspec.json.Decoder(CreateBody)
_MOST_LISTED = 1000


class Control:
    """Handlers of the operations by their names in the table."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        *,
        following: Orchestrator,
        token: str,
        gateway: str,
        api: str,
        activities: Activities,
        most: int = DEFAULTS.http_body,
        reachable: Callable[[], bool],
    ) -> None:
        self._orchestrator = orchestrator
        self._following = following  # its calls have no deadline
        self._gateway = gateway
        self._api = api
        self._most = most  # bytes of a request body
        self._activities = activities
        self._reachable = reachable
        routes = [Route(path, _Methods(handlers)) for path, handlers in self._paths().items()]
        handlers: Any = {BemaError: _failed, HTTPException: _failed, Exception: _failed}
        self.app: ASGIApp = _Door(
            Starlette(routes=routes, exception_handlers=handlers), Credentials({token: LOCAL_ADMIN})
        )

    def _paths(self) -> dict[str, dict[str, _Answer]]:
        """For each path its handlers by method."""
        paths: dict[str, dict[str, _Answer]] = {}
        for row in OPERATIONS:
            paths.setdefault(row.path, {})[row.method] = self._handler(row)
        return paths

    def _handler(self, row: Operation) -> _Answer:
        handler: Any = getattr(self, row.name)
        # The principal is an argument of every other handler: one that takes none fails at its
        # first call, and answers nobody.
        if row.open:
            return cast("_Answer", handler)

        async def guarded(request: Request) -> Response:
            principal: Principal | None = getattr(request.state, "principal", None)
            answer: Response = await handler(request, permitted(principal, row.scope))
            return answer

        return guarded

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await _body(request, self._most)
        try:
            asked = _DECODE.decode(body)
        except msgspec.ValidationError as error:
            raise Invalid(f"the body does not fit: {error}") from error
        # Arrays within arrays end msgspec in a RecursionError, which is the client's fault as well.
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(f"the body is not JSON: {error}", code="bad_request", fix="Send a JSON object.") from error
        if (asked.source is None) == (asked.code is None):
            raise Invalid(
                "the body has neither `source` nor `code`" if asked.code is None else "it has both `source` and `code`"
            )
        code = asked.source.code if asked.source is not None else asked.code or ""
        wanted = CreateRequest(name=asked.name, code=code, env=asked.env)
        made = await self._orchestrator.create(wanted, principal, key=request.headers.get("idempotency-key", ""))
        return _json(self._shown(made), 202, location=f"/faas/python/{made.id}")

    async def list(self, request: Request, principal: Principal) -> Response:
        count = _number(request, "count", 100)
        if not 1 <= count <= _MOST_LISTED:
            raise Invalid(f"count is {count}, not between 1 and {_MOST_LISTED}")
        found = await self._orchestrator.list(principal, after=request.query_params.get("after", ""), count=count)
        return _json(Functions([self._shown(info) for info in found.items], found.next))

    async def read(self, request: Request, principal: Principal) -> Response:
        return _json(self._shown(await self._orchestrator.read(_id(request), principal)))

    async def delete(self, request: Request, principal: Principal) -> Response:
        # only where it is asked for: an orchestrator of the version before knows of no purge
        more = {"purge": True} if _flag(request, "purge") else {}
        await self._orchestrator.delete(_id(request), principal, **more)
        return Response(status_code=204)

    async def data(self, request: Request, principal: Principal) -> Response:
        name, kept = request.query_params.get("name", ""), _flag(request, "kept")
        return _json(DataFolders(await self._orchestrator.data(principal, name=name, kept=kept)))

    async def purge(self, request: Request, principal: Principal) -> Response:
        await self._orchestrator.purge(_id(request), principal)
        return Response(status_code=204)

    async def stack(self, request: Request, principal: Principal) -> Response:
        return _json(await self._orchestrator.stack(_id(request), principal, **_which(request)))

    async def profile(self, request: Request, principal: Principal) -> Response:
        seconds, idle = _number(request, "seconds", 5), _flag(request, "idle")
        # it takes as long as it was asked to
        found = await self._following.profile(_id(request), principal, seconds=seconds, idle=idle, **_which(request))
        return _json(found)

    async def logs(self, request: Request, principal: Principal) -> Response:
        found = await self._orchestrator.read(_id(request), principal)
        lines = self._following.logs(
            found.id,
            principal,
            tail=_number(request, "tail", 100),
            follow=_flag(request, "follow"),
            since=_number(request, "since", 0),
        )
        return StreamingResponse(_ndjson(aiter(lines), request), media_type="application/x-ndjson")

    async def status(self, request: Request, principal: Principal) -> Response:
        every = self._activities.all()
        gateway = {
            "pid": os.getpid(),
            "connections": self._activities.connections,
            "in_flight": sum(activity.in_flight for activity in every),
        }
        # Asked only where it is there: the status page is what one reads when it is not.
        told: dict[str, Any] | None = None
        if self._reachable():
            told = await self._orchestrator.status(principal)
        body = {"version": VERSION, "gateway": self._gateway, "api": self._api, "data": gateway, "orchestrator": told}
        return _json(body)

    async def metrics(self, request: Request, principal: Principal) -> Response:
        return Response(metrics.exposition(self._activities), media_type=metrics.CONTENT_TYPE)

    async def document(self, request: Request) -> Response:
        return _json(openapi(self._api))

    async def docs(self, request: Request) -> Response:
        return Response(page(), media_type="text/html")

    async def health(self, request: Request) -> Response:
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        if not self._reachable():
            raise Unavailable("the orchestrator is away", fix="Try again in a moment.")
        return _json({"status": "ready"})

    def _shown(self, info: DeploymentInfo) -> Function:
        url = f"{self._gateway}/gateway/{info.id}"
        return Function(**{name: getattr(info, name) for name in info.__struct_fields__}, url=url)


class _Methods:
    """What one path takes. All of it stands here, so that a refusal can name it all (RFC 9110, 15.5.6)."""

    def __init__(self, handlers: dict[str, _Answer]) -> None:
        if "GET" in handlers:
            handlers = {"GET": handlers["GET"], "HEAD": handlers["GET"], **handlers}
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        if (handler := self._handlers.get(request.method)) is None:
            allowed = ", ".join(self._handlers)
            raise Invalid(f"this path takes {allowed}", code="method_not_allowed", allow=allowed)
        await (await handler(request))(scope, receive, send)


class _Door:
    """Says who asks, by the credential alone; lets nobody in but to open rows, and gives the request its trace."""

    def __init__(self, app: ASGIApp, credentials: Credentials) -> None:
        self._app = app
        self._credentials = credentials
        self._open = {row.path for row in OPERATIONS if row.open}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        trace = traceparent(headers.get(b"traceparent", b"").decode("latin-1"))
        principal = self._principal(headers.get(b"authorization", b""))
        scope.setdefault("state", {}).update(trace_id=trace[3:35], principal=principal)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", trace[3:35].encode())]
            await send(message)

        # The calls to the orchestrator take trace and principal from here.
        CURRENT.set(Call(scope["path"], metadata={"traceparent": trace}, principal=principal))
        # Before the routes: a stranger cannot tell a path that is there from one that is not.
        if scope["path"] in self._open or principal is not None:
            await self._app(scope, receive, told)
        else:
            await _answer(Denied(), trace[3:35])(scope, receive, told)

    def _principal(self, credential: bytes) -> Principal | None:
        kind, _, token = credential.decode("latin-1").partition(" ")
        return self._credentials.principal(token.strip()) if kind.lower() == "bearer" else None


async def _failed(request: Request, error: Exception) -> Response:
    return _answer(_known(error), request.state.trace_id)


def _known(error: Exception) -> BemaError:
    if isinstance(error, BemaError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 404:
        return NotFound("there is no such path", fix="GET /openapi.json lists them.")
    return BemaError()


def _answer(error: BemaError, trace_id: str) -> Response:
    headers = {"www-authenticate": "Bearer"} if error.problem.http == 401 else {}
    if allowed := error.details.get("allow"):
        headers["allow"] = str(allowed)
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:.0f}"
    return Response(
        msgspec.json.encode(as_json(error, trace_id)) + b"\n", error.problem.http, headers, "application/json"
    )


def _json(value: Any, status: int = 200, **headers: str) -> Response:
    return Response(msgspec.json.encode(value) + b"\n", status, headers, "application/json")


def _id(request: Request) -> str:
    given = str(request.path_params["id"])
    if not is_uuid(given):
        raise NotFound(f"{given!r} is not the id of a deployment")
    return given


def _which(request: Request) -> dict[str, str]:
    """Which instance is asked for."""
    return {name: request.query_params.get(name, "") for name in ("version", "instance")}


def _number(request: Request, name: str, default: int) -> int:
    given = request.query_params.get(name, "")
    if not given:
        return default
    # `int` takes signs, spaces and underscores, and 18 digits stay below 2^63.
    if not given.isdecimal() or len(given) > 18:
        raise Invalid(f"{name} is {given!r}, not a number")
    return int(given)


def _flag(request: Request, name: str) -> bool:
    given = request.query_params.get(name, "false").lower()
    if given not in ("", "1", "true", "yes", "0", "false", "no"):
        raise Invalid(f"{name} is {given!r}, not true or false")
    return given in ("", "1", "true", "yes")


async def _body(request: Request, most: int) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise TooLarge(
                f"the request body is larger than {most} bytes", fix="Send less, or raise the limit http_body."
            )
    return body


async def _ndjson(lines: AsyncIterator[Any], request: Request) -> AsyncIterator[bytes]:
    """A line for each; when the source fails after the start, the last line says so."""
    try:
        async for line in lines:
            yield msgspec.json.encode(line) + b"\n"
    except BemaError as error:
        # The status is sent long ago, so the error can only be a line.
        yield msgspec.json.encode(as_json(error, request.state.trace_id)) + b"\n"

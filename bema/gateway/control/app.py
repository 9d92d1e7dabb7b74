"""The control listener's app: the platform's own API over HTTP.

Law: a row that is not open is answered to a principal only: its handler cannot be called without one, and the door makes it
of the credential alone.
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
from starlette.types import ASGIApp, Receive, Scope, Send

from bema.core.access import LOCAL_ADMIN, Credentials, Principal, permitted
from bema.core.clock import SystemClock
from bema.core.errors import BemaError, Invalid, Unavailable, as_json
from bema.core.keys import ApiKey, digest_of, new_key
from bema.core.limits import DEFAULTS
from bema.core.version import VERSION
from bema.deploy.model.deployment import DeploymentInfo
from bema.deploy.orchestrator.secrets import SecretValue
from bema.deploy.orchestrator.service import Orchestrator
from bema.gateway.control import metrics, requests
from bema.gateway.control.bodies import (
    ChangeBody,
    CreateBody,
    DataFolders,
    Function,
    Functions,
    KeyBody,
    KeyInfo,
    Keys,
    NewKey,
    OutdatedPackages,
    RollbackBody,
    SecretBody,
    Secrets,
    SettingsBody,
    TrafficBody,
    UpgradedFunction,
    Versions,
)
from bema.gateway.control.document import openapi, page
from bema.gateway.control.door import Door, KnownKeys, failed
from bema.gateway.control.operations import OPERATIONS, Operation
from bema.gateway.routing.activity import Activities
from bema.gateway.routing.starts import Starts

__all__ = ["Control"]

_Answer = Callable[[Request], Awaitable[Response]]

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
        starts: Starts,
        most: int = DEFAULTS.http_body,
        reachable: Callable[[], bool],
    ) -> None:
        self._orchestrator = orchestrator
        self._following = following  # its calls have no deadline
        self._gateway = gateway
        self._api = api
        self._most = most  # bytes of a request body
        self._activities = activities
        self._starts = starts
        self._reachable = reachable
        routes = [Route(path, _Methods(handlers)) for path, handlers in self._paths().items()]
        handlers: Any = {BemaError: failed, HTTPException: failed, Exception: failed}
        self._keys = KnownKeys(following)
        self.app: ASGIApp = Door(
            Starlette(routes=routes, exception_handlers=handlers),
            Credentials({token: LOCAL_ADMIN}),
            self._keys.principal,
            [row.path for row in OPERATIONS if row.open],
        )

    async def follow(self) -> None:
        """Hear of what changes who may come in, for ever."""
        await self._keys.follow()

    def _paths(self) -> dict[str, dict[str, _Answer]]:
        """For each path its handlers by method."""
        paths: dict[str, dict[str, _Answer]] = {}
        for row in OPERATIONS:
            paths.setdefault(row.path, {})[row.method] = self._handler(row)
        return paths

    def _handler(self, row: Operation) -> _Answer:
        handler: Any = getattr(self, row.handler)
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
        asked = await requests.creation(request, self._most)
        wanted, owner = asked.wanted(asked.name, replace=asked.replace), requests.acting(principal, asked.user)
        made = await self._orchestrator.create(wanted, owner, key=_key(request))
        return _json(self._shown(made), 202, location=f"/faas/python/{made.id}")

    async def dry_run(self, request: Request, principal: Principal) -> Response:
        asked = await requests.decoded(request, CreateBody, self._most)
        owner = requests.acting(principal, asked.user)
        return _json(await self._orchestrator.dry_run(asked.wanted(asked.name, replace=True), owner))

    async def update(self, request: Request, principal: Principal) -> Response:
        id, asked = requests.id_of(request), await requests.decoded(request, ChangeBody, self._most)
        return _json(
            self._shown(await self._orchestrator.update(id, asked.wanted(), principal, key=_key(request))), 202
        )

    async def configure(self, request: Request, principal: Principal) -> Response:
        id, asked = requests.id_of(request), await requests.decoded(request, SettingsBody, self._most)
        return _json(self._shown(await self._orchestrator.configure(id, asked.settings, principal)))

    async def versions(self, request: Request, principal: Principal) -> Response:
        return _json(Versions(await self._orchestrator.versions(requests.id_of(request), principal)))

    async def rollback(self, request: Request, principal: Principal) -> Response:
        id, asked = requests.id_of(request), await requests.decoded(request, RollbackBody, self._most)
        return _json(self._shown(await self._orchestrator.rollback(id, asked.version, principal)), 202)

    async def traffic(self, request: Request, principal: Principal) -> Response:
        id, asked = requests.id_of(request), await requests.decoded(request, TrafficBody, self._most)
        return _json(self._shown(await self._orchestrator.traffic(id, asked.shares, asked.sticky, principal)), 202)

    async def events(self, request: Request, principal: Principal) -> Response:
        found = await self._orchestrator.read(requests.id_of(request), principal)
        follow, since = requests.flag(request, "follow"), requests.number(request, "since", 0)
        events = self._following.events(found.id, principal, follow=follow, since=since)
        return StreamingResponse(_ndjson(aiter(events), request), media_type="application/x-ndjson")

    async def list(self, request: Request, principal: Principal) -> Response:
        asks = requests.acting(principal, await requests.asked_user(request, self._most))
        count = requests.number(request, "count", 100)
        if not 1 <= count <= _MOST_LISTED:
            raise Invalid(f"count is {count}, not between 1 and {_MOST_LISTED}")
        found = await self._orchestrator.list(asks, after=request.query_params.get("after", ""), count=count)
        return _json(Functions([self._shown(info) for info in found.items], found.next))

    async def read(self, request: Request, principal: Principal) -> Response:
        return _json(self._shown(await self._orchestrator.read(requests.id_of(request), principal)))

    async def delete(self, request: Request, principal: Principal) -> Response:
        # only where it is asked for: an orchestrator of the version before knows of no purge
        more = {"purge": True} if requests.flag(request, "purge") else {}
        await self._orchestrator.delete(requests.id_of(request), principal, **more)
        return Response(status_code=204)

    async def data(self, request: Request, principal: Principal) -> Response:
        name, kept = request.query_params.get("name", ""), requests.flag(request, "kept")
        return _json(DataFolders(await self._orchestrator.data(principal, name=name, kept=kept)))

    async def purge(self, request: Request, principal: Principal) -> Response:
        await self._orchestrator.purge(requests.id_of(request), principal)
        return Response(status_code=204)

    async def outdated(self, request: Request, principal: Principal) -> Response:
        # indexes are asked, which may be slow
        return _json(OutdatedPackages(await self._following.outdated(requests.id_of(request), principal)))

    async def upgrade(self, request: Request, principal: Principal) -> Response:
        upgraded = await self._following.upgrade(requests.id_of(request), principal)
        return _json(UpgradedFunction.of(upgraded, self._gateway), 202)

    async def stack(self, request: Request, principal: Principal) -> Response:
        return _json(await self._orchestrator.stack(requests.id_of(request), principal, **_which(request)))

    async def profile(self, request: Request, principal: Principal) -> Response:
        seconds, idle = requests.number(request, "seconds", 5), requests.flag(request, "idle")
        # it takes as long as it was asked to
        found = await self._following.profile(
            requests.id_of(request), principal, seconds=seconds, idle=idle, **_which(request)
        )
        return _json(found)

    async def logs(self, request: Request, principal: Principal) -> Response:
        found = await self._orchestrator.read(requests.id_of(request), principal)
        # only where it is asked for: an orchestrator of the version before knows of neither
        of = {name: value for name in ("version", "instance") if (value := request.query_params.get(name))}
        lines = self._following.logs(
            found.id,
            principal,
            tail=requests.number(request, "tail", 100),
            follow=requests.flag(request, "follow"),
            since=requests.number(request, "since", 0),
            **of,
        )
        return StreamingResponse(_ndjson(aiter(lines), request), media_type="application/x-ndjson")

    async def set_secret(self, request: Request, principal: Principal) -> Response:
        asked = await requests.decoded(request, SecretBody, self._most)
        owner = requests.acting(principal, request.query_params.get("user", ""))
        await self._orchestrator.put_secret(str(request.path_params["name"]), SecretValue(asked.value), owner)
        return Response(status_code=204)

    async def secrets(self, request: Request, principal: Principal) -> Response:
        owner = requests.acting(principal, request.query_params.get("user", ""))
        return _json(Secrets(await self._orchestrator.secrets(owner)))

    async def remove_secret(self, request: Request, principal: Principal) -> Response:
        owner = requests.acting(principal, request.query_params.get("user", ""))
        await self._orchestrator.remove_secret(str(request.path_params["name"]), owner)
        return Response(status_code=204)

    async def add_key(self, request: Request, principal: Principal) -> Response:
        asked, text, now = await requests.decoded(request, KeyBody, self._most), new_key(), SystemClock().now()
        expires = 0 if asked.expires_in is None else now + asked.expires_in * 1_000_000
        wanted = ApiKey(
            name=asked.name,
            user=asked.user or asked.name,
            digest=digest_of(text),
            admin=asked.admin,
            expires=expires,
        )
        made = await self._orchestrator.add_key(wanted, principal)
        # whoever has the answer may use it at once
        await self._keys.settled(made.name, made.digest)
        return _json(NewKey.made(made, text), 201)

    async def keys(self, request: Request, principal: Principal) -> Response:
        return _json(Keys([KeyInfo.of(key) for key in await self._orchestrator.keys(principal)]))

    async def revoke_key(self, request: Request, principal: Principal) -> Response:
        name = str(request.path_params["name"])
        await self._orchestrator.revoke_key(name, principal)
        await self._keys.settled(name)
        return Response(status_code=204)

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
        return Response(metrics.exposition(self._activities, self._starts), media_type=metrics.CONTENT_TYPE)

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
        return Function.of(info, self._gateway)


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


def _key(request: Request) -> str:
    return request.headers.get("idempotency-key", "")


def _json(value: Any, status: int = 200, **headers: str) -> Response:
    return Response(msgspec.json.encode(value) + b"\n", status, headers, "application/json")


def _which(request: Request) -> dict[str, str]:
    """Which instance is asked for."""
    return {name: request.query_params.get(name, "") for name in ("version", "instance")}


async def _ndjson(lines: AsyncIterator[Any], request: Request) -> AsyncIterator[bytes]:
    """A line for each; when the source fails after the start, the last line says so."""
    try:
        async for line in lines:
            yield msgspec.json.encode(line) + b"\n"
    except BemaError as error:
        # The status is sent long ago, so the error can only be a line.
        yield msgspec.json.encode(as_json(error, request.state.trace_id)) + b"\n"

"""The door of the control API: who asks, and how a failure leaves.

Laws: who asks is told by the credential alone, and nobody gets in but to open rows. Keys are known here, as the orchestrator
told them last: a request is let in while it is away, and a key that was revoked lets nobody in from then on. Every failure
leaves as the table's status with the same JSON as everywhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bema.core.access import GATEWAY, Credentials, Principal
from bema.core.call import CURRENT, Call, traceparent
from bema.core.clock import Clock, SystemClock
from bema.core.errors import BemaError, Denied, NotFound, Unavailable, as_json
from bema.core.keys import Keyring, looks_like_a_key
from bema.deploy.orchestrator.service import Orchestrator

__all__ = ["Door", "KnownKeys", "failed"]

logger = logging.getLogger(__name__)

_AGAIN = 0.5  # seconds until the orchestrator is asked again
_PATIENCE = 2.0  # seconds in which what was just changed is known here


class KnownKeys:
    """The keys in force, followed."""

    def __init__(self, orchestrator: Orchestrator, clock: Clock | None = None) -> None:
        self._orchestrator = orchestrator
        self._clock = clock or SystemClock()
        self._ring = Keyring()
        self._told = asyncio.Event()

    async def follow(self) -> None:
        """Hear of keys for ever; while nobody tells of them, what was told last holds."""
        while True:
            try:
                async for keys in self._orchestrator.credentials(GATEWAY):
                    self._ring.hold(keys)
                    self._told.set()
                    self._told = asyncio.Event()
            except BemaError as error:
                logger.debug("keys are not told: %s", error)
            await asyncio.sleep(_AGAIN)

    def principal(self, text: str) -> Principal | None:
        """Who shows it; `Unavailable` where it may be a key that was not told yet."""
        if not self._ring.known and looks_like_a_key(text):
            raise Unavailable("the keys are not known yet: the orchestrator is away", fix="Try again in a moment.")
        return self._ring.principal(text, self._clock.now())

    async def settled(self, name: str, digest: str = "") -> None:
        """Wait until the key of that name is known here to be this one, or none; not longer than a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while self._ring.digest(name) != digest:
                    await self._told.wait()


class Door:
    """Says who asks, by the credential alone; lets nobody in but to paths that are `open`, and gives the request its trace."""

    def __init__(
        self, app: ASGIApp, tokens: Credentials, keys: Callable[[str], Principal | None], open: Sequence[str]
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._keys = keys
        self._open = frozenset(open)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        trace = traceparent(headers.get(b"traceparent", b"").decode("latin-1"))
        told: BemaError = Denied()
        try:
            principal = self._principal(headers.get(b"authorization", b""))
        except Unavailable as error:
            principal, told = None, error
        scope.setdefault("state", {}).update(trace_id=trace[3:35], principal=principal)

        async def traced(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", trace[3:35].encode())]
            await send(message)

        # The calls to the orchestrator take trace and principal from here.
        CURRENT.set(Call(scope["path"], metadata={"traceparent": trace}, principal=principal))
        # Before the routes: a stranger cannot tell a path that is there from one that is not.
        if scope["path"] in self._open or principal is not None:
            await self._app(scope, receive, traced)
        else:
            await _answer(told, trace[3:35])(scope, receive, traced)

    def _principal(self, credential: bytes) -> Principal | None:
        kind, _, token = credential.decode("latin-1").partition(" ")
        if kind.lower() != "bearer":
            return None
        return self._tokens.principal(token.strip()) or self._keys(token.strip())


async def failed(request: Request, error: Exception) -> Response:
    return _answer(_known(error), request.state.trace_id)


def _known(error: Exception) -> BemaError:
    if isinstance(error, BemaError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 404:
        return NotFound("there is no such path", fix="GET /openapi.json lists them.")
    return BemaError()


def _answer(error: BemaError, trace_id: str) -> Response:
    headers: dict[str, Any] = {"www-authenticate": "Bearer"} if error.problem.http == 401 else {}
    if allowed := error.details.get("allow"):
        headers["allow"] = str(allowed)
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:.0f}"
    return Response(
        msgspec.json.encode(as_json(error, trace_id)) + b"\n", error.problem.http, headers, "application/json"
    )

"""What a process tells of itself over HTTP: `/healthz`, `/readyz` and `/metrics`.

Law: `/healthz` says whether the process should live on, also while it drains and while its event loop stands; `/readyz` is
200 only while every service takes calls. No page shows an argument, an answer or a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from bema.core.errors import NotFound, as_json
from bema.sdk.servers.adapted import Scope

TEXT, JSON = b"text/plain; version=0.0.4; charset=utf-8", b"application/json"

Page = tuple[int, bytes, bytes]  # status, content type, body


class Pages:
    """The ASGI app. `told` gives what both health pages say, `metrics` the page of that name."""

    def __init__(self, told: Callable[[], dict[str, Any]], metrics: Callable[[], str]) -> None:
        self._told = told
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        status, kind, body = self._page(scope["path"])
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _page(self, path: str) -> Page:
        if path == "/metrics":
            return 200, TEXT, self._metrics().encode()
        told = self._told()
        found = {"/healthz": told["alive"], "/readyz": told["ready"]}.get(path)
        if found is None:
            error = NotFound(f"there is no {path}", fix="There are /healthz, /readyz and /metrics.")
            return 404, JSON, msgspec.json.encode(as_json(error)) + b"\n"
        return 200 if found else 503, JSON, msgspec.json.encode(told) + b"\n"

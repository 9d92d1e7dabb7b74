"""Under which path the gateway shows an app, told in the form that the app reads.

The ASGI specification has `path` include `root_path`. Most frameworks route by `path` as it is, whatever `root_path` says, and
answer 404 to the whole one; a few take `root_path` off it first, and lose their mounted apps without it.

Law: every app is given the path it would have at the root of a host, and `root_path` for the links it makes. Only who is known
to take `root_path` off is given the whole path.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from bema.sdk.apps.http_app import ASGIApp, Scope

_HEADER = b"x-forwarded-prefix"
_READERS = frozenset({"quart", "django", "a2wsgi"})
_WRAPPED = 8  # middleware around middleware: more than anybody writes, and an end for what wraps itself


def behind_prefix(app: ASGIApp) -> ASGIApp:
    """`app` with `root_path` from the gateway's header. Without one nothing changes."""
    whole = takes_whole_path(app)

    async def prefixed(scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] in ("http", "websocket"):
            prefix = next((value for name, value in scope["headers"] if name == _HEADER), b"").rstrip(b"/")
            if prefix:
                scope["root_path"] = text = prefix.decode("latin-1")
                if whole:
                    scope["path"] = text + scope["path"]
                    scope["raw_path"] = prefix + (scope.get("raw_path") or b"")
        await app(scope, receive, send)

    return prefixed


def takes_whole_path(app: Any) -> bool:
    """Whether `app`, or what its middleware wraps, takes `root_path` off `path` before it routes."""
    for _ in range(_WRAPPED):
        packages = {cls.__module__.partition(".")[0] for cls in type(app).__mro__}
        if packages & _READERS:
            return True
        if "starlette" in packages:
            # the function came with the release that began to: 0.33
            return hasattr(sys.modules.get("starlette._utils"), "get_route_path")
        # written as `self.app` by convention of the field; who names it otherwise routes by the path itself
        app = getattr(app, "app", None)
    return False

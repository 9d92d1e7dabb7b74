"""marimo notebooks, shown as apps by marimo's own ASGI server: run from the command line, a notebook shows nothing and ends."""

from __future__ import annotations

import sys
from typing import Any

from bema.sdk.apps.http_app import HttpApp
from bema.wire.module.handshake import EndpointAnnounce


class MarimoServer:
    def adapt(self, target: Any) -> HttpApp | None:
        if not any((cls.__module__, cls.__name__) == ("marimo._ast.app", "App") for cls in type(target).__mro__):
            return None
        import marimo  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - the script's own

        # it reads the file anew for each visitor, and does not take the object
        server = marimo.create_asgi_app().with_app(path="/", root=sys.argv[0]).build()
        return HttpApp("asgi", server, [EndpointAnnounce("/", ["*"])])

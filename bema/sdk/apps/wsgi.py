"""WSGI apps, each request on a thread of a2wsgi's pool."""

from __future__ import annotations

import inspect
from typing import Any

from bema.core.errors import Refused
from bema.sdk.apps.http_app import HttpApp
from bema.wire.module.handshake import EndpointAnnounce


class WsgiServer:
    def adapt(self, target: Any) -> HttpApp | None:
        if not callable(target) or isinstance(target, type) or _positional(target) != 2:
            return None
        try:
            from a2wsgi import WSGIMiddleware  # noqa: PLC0415 - extra
        except ImportError as error:
            raise Refused(
                "serving a WSGI app needs a2wsgi", code="missing_extra", fix="Install bema[platform], or add a2wsgi."
            ) from error
        app: Any = WSGIMiddleware(target)
        return HttpApp("wsgi", app, [EndpointAnnounce("/", ["*"])], lifespan="off")


def _positional(target: Any) -> int:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return -1
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)

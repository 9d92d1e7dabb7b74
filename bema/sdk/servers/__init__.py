"""What a script may hold besides services, brought to one form: an ASGI app and what to say of it.

Law: what is found is decided by looking at the object, never by trying it; what is none of these is refused by name.
"""

from __future__ import annotations

from typing import Any

from bema.core.errors import BadDeclaration
from bema.sdk.servers import asgi, mcp, wsgi
from bema.sdk.servers.adapted import Adapted

__all__ = ["Adapted", "adapt"]


def adapt(target: Any, name: str) -> Adapted:
    """The app that `target` is or can give; `BadDeclaration` naming it when it is of no known kind."""
    for found in (mcp.adapt(target), asgi.adapt(target), wsgi.adapt(target)):
        if found is not None:
            return found
    kind = type(target)
    raise BadDeclaration(
        f"{name!r} of the script is a {kind.__module__}.{kind.__qualname__}: neither an ASGI app, a WSGI app, an MCP server"
        " nor a class with @service",
        fix='Name another object with `[tool.bema] entry = "..."`, or serve it yourself on PORT under __main__.',
    )

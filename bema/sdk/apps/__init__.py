"""What a script may hold besides services, brought to one form: an app that is served, and what to say of it.

Law: what is found is decided by looking at the object, never by trying it; what is none of these is refused by name.
"""

from __future__ import annotations

from typing import Any, Protocol

from bema.core import settings
from bema.core.errors import BadDeclaration
from bema.core.version import VERSION
from bema.parts import Factory
from bema.sdk.apps.http_app import HttpApp

__all__ = ["AppServer", "HttpApp", "ServerFactory", "adapt"]


class AppServer(Protocol):
    """One kind of app that a script may hold."""

    def adapt(self, target: Any) -> HttpApp | None:
        """The app that `target` is or can give; None when it is of another kind, told without calling it."""
        ...


class ServerFactory(Factory[AppServer], group="bema.server", api=VERSION, opens="plain"):
    """By the kind of app. Each is pure: there is nothing that a twin in memory would leave out."""


OURS = ("mcp", "aiohttp", "asgi", "wsgi")  # from the narrowest kind to the widest
for _name in OURS:
    ServerFactory.register_lazy(_name, f"bema.sdk.apps.{_name}:{_name.capitalize()}Server")


def adapt(target: Any, name: str) -> HttpApp:
    """The app that `target` is or can give; `BadDeclaration` naming it when it is of no known kind."""
    ServerFactory.discover_plugins()
    # who wrote a plugin knows its own objects; ours go by their shape
    for kind in [one for one in ServerFactory.names() if one not in OURS] + list(OURS):
        server = ServerFactory.open(settings.current(), kind)
        # a framework that builds on another holds the app that is served (`.server` of Dash)
        for candidate in (target, getattr(target, "server", None)):
            if candidate is not None and (found := server.adapt(candidate)) is not None:
                return found
    kind_of = type(target)
    raise BadDeclaration(
        f"{name!r} of the script is a {kind_of.__module__}.{kind_of.__qualname__}: neither an ASGI app, a WSGI app, an MCP"
        " server nor a class with @service",
        fix='Name another object with `[tool.bema] entry = "..."`, or serve it yourself on PORT under __main__.',
    )

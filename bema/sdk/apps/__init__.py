"""Apps: the kinds of app that a script may hold besides services, each adapted to ASGI.

Law: the kind of an object is decided by looking at it, never by calling it. An object of no known kind is refused by name.
"""

from __future__ import annotations

from typing import Any, Protocol

from bema.core import settings
from bema.core.errors import BadDeclaration, BemaError
from bema.core.version import VERSION
from bema.parts import Factory
from bema.sdk.apps.http_app import HttpApp

__all__ = ["AppServer", "HttpApp", "ServerFactory", "adapt", "serves"]


class AppServer(Protocol):
    """One kind of app that a script may hold."""

    def adapt(self, target: Any) -> HttpApp | None:
        """Adapt an object of this kind to an ASGI app; None, without calling it, for an object of another kind."""
        ...


class ServerFactory(Factory[AppServer], group="bema.server", api=VERSION, opens="plain"):
    """Adapters by the kind of app. They do no I/O, so there is no twin in memory."""


OURS = ("mcp", "aiohttp", "marimo", "asgi", "wsgi")  # from the narrowest kind to the widest
for _name in OURS:
    ServerFactory.register_lazy(_name, f"bema.sdk.apps.{_name}:{_name.capitalize()}Server")


def adapt(target: Any, name: str) -> HttpApp:
    """The ASGI app for an object of a script.

    Raises:
        BadDeclaration: the object is of no known kind; the message has its `name`.
    """
    found = _adapted(target)
    if found is not None:
        return found
    kind_of = type(target)
    raise BadDeclaration(
        f"{name!r} of the script is a {kind_of.__module__}.{kind_of.__qualname__}: neither an ASGI app, a WSGI app, an MCP"
        " server nor a class with @service",
        fix='Name another object with `[tool.bema] entry = "..."`; `entry = "__main__"` runs the file as a program.',
    )


def serves(target: Any) -> bool:
    """Whether an object is of a known kind; also where what serves that kind is not installed."""
    try:
        return _adapted(target) is not None
    except BemaError:
        return True


def _adapted(target: Any) -> HttpApp | None:
    # not at import: the installed packages are read once, by a process that serves an app
    ServerFactory.discover_plugins()
    # plugins first: a plugin recognises its own objects, ours go by the shape of a call
    for kind in [one for one in ServerFactory.names() if one not in OURS] + list(OURS):
        server = ServerFactory.open(settings.current(), kind)
        # a framework that builds on another holds the app that is served (`.server` of Dash)
        for candidate in (target, getattr(target, "server", None)):
            if candidate is not None and (found := server.adapt(candidate)) is not None:
                return found
    return None

"""ServiceSpec: what a class says about itself, as data.

Laws: the decorators read it once, and nobody keeps a copy. Serving, packaging, OpenAPI, typed clients and the console all
read the same spec; an extension keeps what it knows under its own key of `facts`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from bema.core.errors import BadDeclaration

RESERVED = ("requests", "metrics_labels", "on_demand")
"""Keys of an endpoint's `facts` that bema itself fills, from the signature, its options or `serve_endpoint`."""


def check_bound(what: str, value: Any, least: int) -> int:
    """Return `value` if it is a whole number of at least `least`; `BadDeclaration` names `what` otherwise."""
    # `type`, not `isinstance`: True is an `int`
    if type(value) is not int or value < least:
        raise BadDeclaration(f"{what} is a whole number of at least {least}, not {value!r}")
    return value


class Shape(enum.StrEnum):
    """How a call moves: how many requests go in, how many answers come out."""

    UNARY = "unary"
    STREAM = "stream"  # one request, many answers
    COLLECT = "collect"  # many requests, one answer
    BOTH = "both"  # many of each

    @property
    def streams_in(self) -> bool:
        return self in (Shape.COLLECT, Shape.BOTH)

    @property
    def streams_out(self) -> bool:
        return self in (Shape.STREAM, Shape.BOTH)


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of an endpoint; `type` is the resolved annotation (`Any` where there is none)."""

    name: str
    type: Any = Any
    required: bool = True
    default: Any = None


class EndpointSpec(msgspec.Struct, frozen=True):
    """One endpoint. `returns` is the type of its answer, or of each item where answers stream."""

    name: str
    shape: Shape
    parameters: tuple[Parameter, ...] = ()
    returns: Any = Any
    doc: str = ""
    attribute: str = ""  # the method's name on the class, where it differs from `name`
    incoming: str | None = None  # the parameter that receives the incoming stream, whose items are `facts["requests"]`
    takes_call: str | None = None  # the parameter that receives the Call, if the signature asks for it
    threaded: bool = False  # a plain `def`: it runs in a thread
    idempotent: bool = False
    durable: bool = False  # its calls are written down, and finished whatever dies
    resumable: bool = False  # its stream can be continued from a cursor, on another instance too
    facts: Mapping[str, Any] = {}

    @property
    def later(self) -> bool:
        """Whether a call of it may be made later, by who does not wait for it."""
        return self.durable or (self.on_demand is not None)

    @property
    def on_demand(self) -> OnDemand | None:
        """The extension that it needs when somebody asks for that; None for none."""
        found = self.facts.get("on_demand")
        return found if isinstance(found, OnDemand) and self.shape is Shape.UNARY else None


class OnDemand(msgspec.Struct, frozen=True):
    """An extension that is opened when `endpoint`, a built-in one, is first asked. Operations other than `begins` make nothing."""

    extension: str
    endpoint: EndpointSpec
    begins: str


DESCRIBE: Final = EndpointSpec("$describe", Shape.UNARY, (), bytes, doc="The description, as JSON.", idempotent=True)
"""The built-in endpoint that answers the description. Its name is no Python identifier, so no user's endpoint can have it."""

PATIENCE: Final = 10.0
"""Seconds that a caller waits for a description; a stalled instance gives none."""


class Hooks(msgspec.Struct, frozen=True):
    """The attribute names of the marked methods, base classes first, each in order of definition."""

    init: tuple[str, ...] = ()
    shutdown: tuple[str, ...] = ()
    entrypoint: str | None = None
    liveness: tuple[str, ...] = ()
    readiness: tuple[str, ...] = ()


class ServiceSpec(msgspec.Struct, frozen=True):
    """One service class: its address, endpoints, hooks and options."""

    name: str
    namespace: str
    doc: str = ""
    endpoints: tuple[EndpointSpec, ...] = ()
    hooks: Hooks = Hooks()
    abstract: bool = False
    facts: dict[str, Any] = {}
    version: str = ""  # what its callers are told
    slots: int | None = None  # calls that run at once in one instance; None: as many as come
    queue: int = 0  # calls that wait when all slots are taken

    @property
    def address(self) -> str:
        """`namespace.component`."""
        return f"{self.namespace}.{self.name}"

    def endpoint(self, name: str) -> EndpointSpec | None:
        """The endpoint of that name, or None."""
        return next((e for e in self.endpoints if e.name == name), None)

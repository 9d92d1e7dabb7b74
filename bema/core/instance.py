"""Instance: the record of a running process, and the one table of the states that it passes through.

Law: an instance moves only along `MOVES`, and an illegal move fails in `move` alone.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from bema.core.errors import ProtocolError
from bema.core.naming import show_instance_id
from bema.core.redaction import hides
from bema.core.spec import EndpointSpec, Shape

HAND = "hand"
DEV = "dev"
DEPLOYED = "deployment/"
"""The lanes of a component: instances started by hand, by `bema dev`, and (with its name behind it) by a deployment."""


class State(enum.StrEnum):
    """The states of an instance, which its own process and its launcher both keep."""

    NEW = "new"  # decided, no process yet
    STARTING = "starting"  # a process exists, nothing announced
    SERVING = "serving"
    DRAINING = "draining"  # finishes what it has, takes nothing new
    GONE = "gone"  # ended as asked
    FAILED = "failed"  # ended otherwise


MOVES: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.STARTING, State.GONE, State.FAILED}),
    State.STARTING: frozenset({State.SERVING, State.DRAINING, State.GONE, State.FAILED}),
    State.SERVING: frozenset({State.DRAINING, State.GONE, State.FAILED}),
    State.DRAINING: frozenset({State.GONE, State.FAILED}),
    State.GONE: frozenset(),
    State.FAILED: frozenset(),
}


def move(now: State, to: State) -> State:
    """Return `to` where an instance may go there from `now`; `ProtocolError` where it may not."""
    if to not in MOVES[now]:
        raise ProtocolError(f"an instance cannot go from {now.value} to {to.value}")
    return to


class EndpointInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a record says of one endpoint: enough to call it without its class."""

    name: str
    shape: Shape = Shape.UNARY
    idempotent: bool = False
    parameters: tuple[str, ...] | None = None  # names in order; None where the instance does not say
    fields: tuple[str, ...] | None = None  # of the only parameter, where that is a struct
    resumable: bool = False
    durable: bool = False
    later: bool = False  # a call of it may be made later


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """How requests are given to an instance.

    Those that are equal in `sticky`, `header:NAME` or `cookie:NAME`, go to one version. It is given at most `concurrency` at a
    time, and each may take `timeout` seconds; 0 is no bound.
    """

    sticky: str = ""
    concurrency: int = 0
    timeout: float = 0.0


class Instance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One running process of a service, as Discovery shows it.

    `addresses` maps a protocol to the addresses that speak it, the best first: `{"rpc": ("unix:/run/x.sock",
    "tcp:127.0.0.1:4100"), "http": ("unix:/run/y.sock",)}`. A peer must show `token`; only the user of the process can read
    the record. `since` is the instant in microseconds UTC when the instance was first shown. `lane` tells apart what is
    deployed, what was started by hand and what is being written; `pid` counts in `pid_namespace`, an inode.
    """

    id: int
    namespace: str
    component: str
    endpoints: tuple[EndpointInfo, ...] = ()
    addresses: dict[str, tuple[str, ...]] = {}
    state: State = State.SERVING
    deployment: str = ""  # uuid, empty for a process started by hand
    version: str = ""
    pid: int = 0
    process_start: int = 0  # start time of `pid` in clock ticks since boot (field 22 of /proc/pid/stat)
    host: str = ""
    token: str = ""
    fence: int = 0
    since: int = 0
    stalled: bool = False  # its event loop does not turn; a mark beside the state, not a state
    ready: bool = True  # what it says of itself; a mark as well
    data: dict[str, Any] = {}  # runtime data that the service published about itself
    digest: str = ""  # of its description; empty where it answers none, as those of an older bema
    lane: str = HAND
    pid_namespace: int = 0  # 0: not known, as those of an older bema
    share: int = 100  # percent of its deployment's requests that its version is given; beside others of the deployment
    terms: Terms = Terms()
    __repr__ = hides("token")

    @property
    def component_address(self) -> str:
        """`namespace.component`."""
        return f"{self.namespace}.{self.component}"

    @property
    def label(self) -> str:
        """The id as people see it: 13 characters of base32."""
        return show_instance_id(self.id)

    def routable(self) -> bool:
        """Whether new calls may be sent to the instance."""
        return self.state is State.SERVING and self.ready and not self.stalled


def info_of(spec: EndpointSpec) -> EndpointInfo:
    """The part of a spec that every record carries."""
    # small, since discovery copies the record to every process that looks: types are in the description
    only = spec.parameters[0].type if len(spec.parameters) == 1 else None
    return EndpointInfo(
        name=spec.name,
        shape=spec.shape,
        idempotent=spec.idempotent,
        parameters=tuple(parameter.name for parameter in spec.parameters),
        fields=_fields(only),
        resumable=spec.resumable,
        durable=spec.durable,
        later=spec.later,
    )


def _fields(kind: Any) -> tuple[str, ...] | None:
    """The field names of a msgspec struct, dataclass or Pydantic model as they travel; None for any other type."""
    # looked for by attribute: Pydantic need not be installed here
    for attribute in ("__struct_encode_fields__", "__dataclass_fields__", "model_fields"):
        if isinstance(kind, type) and (fields := getattr(kind, attribute, None)) is not None:
            return tuple(fields)
    return None

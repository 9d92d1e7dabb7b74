"""Handshake: Init -> Announce -> Stop, between a launcher and the process that it launched.

Laws: both ends run one table (`core.instance.MOVES`). `Handshake` knows no sockets, pipes or clocks; it knows which end may
say which word, and to which state each word leads. The three messages have the fields of the module protocol; every field
of ours is optional, and absent unless it was given.
"""

from __future__ import annotations

import enum
from typing import Any, Literal

import msgspec

from bema.core.errors import ProtocolError, Refused
from bema.core.instance import EndpointInfo, State, move
from bema.core.redaction import hides

PROTOCOL = 1
FEATURES: tuple[str, ...] = ("listen_fd", "lease_fd", "drain", "status", "operations")

SecurityLevel = Literal["None", "Token", "Mtls"]
Kind = Literal["service", "app", "mcp", "main", "asgi", "wsgi"]


class Protocol(msgspec.Struct, frozen=True):
    """The versions of this conversation that a side speaks."""

    min: int
    max: int


class TcpChannel(msgspec.Struct, frozen=True):
    address: str
    tls_enabled: bool
    required: bool


class IpcChannel(msgspec.Struct, frozen=True):
    socket_path: str
    required: bool


class InitEntry(msgspec.Struct, frozen=True):
    """The object of a script that is run, and the kind of app that it is."""

    kind: Kind
    name: str = ""


# In this file and in messages.py a default that is always written is given by a factory: `omit_defaults` leaves out
# plain defaults only, so `= None` means "absent when None" and `= always(None)` means "null when None".
def always(value: Any) -> Any:
    return msgspec.field(default_factory=lambda: value)


class Init(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a launcher tells a process first. `listen` is `ip:port`, `unix:/path`, `tcp:ip:port` or a bare path."""

    orchestrator_api: str
    module_id: str
    env: dict[str, str]
    listen: str
    tcp_channel: TcpChannel | None = None
    ipc_channel: IpcChannel | None = None
    auth_token: str | None = None
    security_level: SecurityLevel = always("None")
    # ours
    protocol: Protocol | None = None
    features: list[str] | None = None
    instance: str | None = None  # label of the instance
    deployment: str | None = None
    version: str | None = None
    name: str | None = None
    namespace: str | None = None
    listen_fd: int | None = None  # the listening socket, already bound
    lease_fd: int | None = None  # an open file, locked: keep it open for life
    operations_fd: int | None = None  # a socket for whatever is asked of the orchestrator besides this conversation
    secrets_fd: int | None = None  # variables as JSON, in sealed memory: read once, before anything of the module runs
    registers: bool | None = None  # False: the launcher shows it in discovery, with or without a lease_fd
    drain_ms: int | None = None
    script: str | None = None
    entry: InitEntry | None = None
    site: list[str] | None = None
    platform: str | None = None
    host: str | None = None  # "module:function" that serves what the script holds
    listen_fds: dict[str, int] | None = None
    settings: dict[str, Any] | None = None
    __repr__ = hides("env", "auth_token")


class EndpointAnnounce(msgspec.Struct, frozen=True, omit_defaults=True):
    path: str
    methods: list[str]
    auth: str | None = None


class Announce(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="op", tag="announce"):
    """What a process answers once it listens: bind first, then announce."""

    listen: str
    endpoints: list[EndpointAnnounce]
    # ours
    instance: str | None = None
    protocol: int | None = None
    features: list[str] | None = None
    kind: Kind | None = None
    namespace: str | None = None  # the address of a service, where it differs from what the launcher assumed
    name: str | None = None
    addresses: dict[str, list[str]] | None = None
    operations: list[EndpointInfo] | None = None
    phases: dict[str, int] | None = None
    digest: str | None = None  # of the description


class Stop(msgspec.Struct, omit_defaults=True, tag_field="op", tag="shutdown"):
    deadline_ms: int | None = None
    reason: str | None = None


Word = Init | Announce | Stop


class HandshakeSide(enum.StrEnum):
    """One of the two ends."""

    INSIDE = "inside"  # the process
    OUTSIDE = "outside"  # its launcher

    @property
    def opposite(self) -> HandshakeSide:
        return HandshakeSide.OUTSIDE if self is HandshakeSide.INSIDE else HandshakeSide.INSIDE


# word -> who says it, and the state it leads to
_SAYS: dict[type[Word], tuple[HandshakeSide, State]] = {
    Init: (HandshakeSide.OUTSIDE, State.STARTING),
    Announce: (HandshakeSide.INSIDE, State.SERVING),
    Stop: (HandshakeSide.OUTSIDE, State.DRAINING),
}


class Handshake:
    """One end of the conversation; `state` is the state of the instance as this end knows it."""

    def __init__(self, side: HandshakeSide) -> None:
        self.side = side
        self.state = State.NEW

    def say(self, word: Word) -> bytes:
        """Make the move of a word and return it as a line; `ProtocolError` where this end may not say it, or not now."""
        self._turn(word, said_here=True)
        return encode(word)

    def hear(self, word: Word) -> State:
        """Make the move of the peer's word and return the state; `ProtocolError` where the peer may not say it, or not now."""
        self._turn(word, said_here=False)
        return self.state

    def ended(self, clean: bool) -> State:
        """Take note that the process has ended; `clean` where it was asked to stop, or ended with success by itself."""
        self.state = move(self.state, State.GONE if clean else State.FAILED)
        return self.state

    def _turn(self, word: Word, *, said_here: bool) -> None:
        speaker, to = _SAYS[type(word)]
        if (speaker is self.side) is not said_here:
            raise ProtocolError(f"{type(word).__name__} is not the {speaker.opposite}'s to say")
        self.state = move(self.state, to)


_encoder = msgspec.json.Encoder()


def encode(word: msgspec.Struct) -> bytes:
    """One message as one line."""
    return _encoder.encode(word) + b"\n"


def read_init(line: bytes | str) -> Init:
    """Read the first line to a process: a bare Init, in which an `op` is ignored. `ProtocolError` for anything else."""
    try:
        return msgspec.json.decode(line, type=Init)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the first line is not an Init: {error}") from error


def init_of(data: dict[str, Any]) -> Init:
    """An Init from data that was decoded already; `ProtocolError` where it is none."""
    try:
        return msgspec.convert(data, Init)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"this is not an Init: {error}") from error


def default_init(module_id: str) -> Init:
    """The Init of a process that was started by hand."""
    return Init(orchestrator_api="", module_id=module_id, env={}, listen="")


def agree(theirs: Protocol | None, ours: Protocol | None = None) -> int | None:
    """The version that both sides speak, or None where the launcher names none; `Refused` where they have none in common."""
    ours = ours or Protocol(PROTOCOL, PROTOCOL)
    if theirs is None:
        return None
    best = min(theirs.max, ours.max)
    if best < max(theirs.min, ours.min):
        raise Refused(
            f"the launcher speaks versions {theirs.min}-{theirs.max} of the handshake, this process {ours.min}-{ours.max}",
            fix="Install versions of bema that are at most one minor version apart.",
        )
    return best

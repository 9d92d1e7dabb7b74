"""Many calls on one connection, as a table.

Law 1: everything that decides what a message does to a call is in `TABLE`; an illegal move fails in `step` alone.
Law 2: this module does not know which end it plays: both ends hold the same state for a call, moved by what was sent and
received alike. A message that crosses the end of its call is late, not illegal.
"""

from __future__ import annotations

import enum
from typing import Any, Final

from bema.core.errors import ProtocolError
from bema.core.limits import limit
from bema.wire import frames as f

STREAM_WINDOW: Final = int(limit("rpc_stream_window"))
CONNECTION_WINDOW: Final = int(limit("rpc_connection_window"))
FLOOR: Final = 16 * 1024  # what every stream may have unread, however full the connection's window is
GRANT: Final = STREAM_WINDOW // 4  # consumed bytes are given back in portions of this


class Side(enum.Enum):
    CALLER = "caller"
    CALLEE = "callee"

    @property
    def other(self) -> Side:
        return Side.CALLEE if self is Side.CALLER else Side.CALLER


class State(enum.Enum):
    IDLE = "idle"
    ONE = "one"  # one answer is owed
    MANY = "many"  # items are owed
    ONE_IN = "one, input open"
    MANY_IN = "many, input open"
    CLOSED = "closed"


_ONE = {f.ANSWER: State.CLOSED, f.ERROR: State.CLOSED, f.CANCEL: State.CLOSED, f.STOP: State.ONE}
_MANY = {
    f.ITEM: State.MANY,
    f.END: State.CLOSED,
    f.ERROR: State.CLOSED,
    f.CANCEL: State.CLOSED,
    f.STOP: State.MANY,
    f.CREDIT: State.MANY,
}

TABLE: Final[dict[State, dict[int, State]]] = {
    State.IDLE: {f.UNARY: State.ONE, f.STREAM: State.MANY, f.COLLECT: State.ONE_IN, f.BOTH: State.MANY_IN},
    # credit for an input may still be on its way when the input ends
    State.ONE: {**_ONE, f.CREDIT: State.ONE},
    State.MANY: _MANY,
    State.ONE_IN: {
        **_ONE,
        f.STOP: State.ONE_IN,
        f.INPUT: State.ONE_IN,
        f.INPUT_END: State.ONE,
        f.CREDIT: State.ONE_IN,
    },
    State.MANY_IN: {
        **_MANY,
        f.ITEM: State.MANY_IN,
        f.STOP: State.MANY_IN,
        f.CREDIT: State.MANY_IN,
        f.INPUT: State.MANY_IN,
        f.INPUT_END: State.MANY,
    },
    State.CLOSED: dict.fromkeys(
        (f.INPUT, f.INPUT_END, f.CANCEL, f.STOP, f.CREDIT, f.ANSWER, f.ITEM, f.END, f.ERROR), State.CLOSED
    ),
}

SENDERS: Final[dict[int, frozenset[Side]]] = {
    **dict.fromkeys((*f.REQUESTS, f.INPUT, f.INPUT_END, f.CANCEL, f.STOP), frozenset({Side.CALLER})),
    **dict.fromkeys((f.ANSWER, f.ITEM, f.END, f.ERROR), frozenset({Side.CALLEE})),
    f.CREDIT: frozenset(Side),
}

CONNECTION_KINDS: Final = frozenset({f.HELLO, f.PING, f.PONG, f.GOAWAY, f.CREDIT})


def step(state: State, kind: Any, sender: Side) -> State:
    """The state after a message, or `ProtocolError`: the one place where an illegal one fails."""
    known = f.KINDS.get(kind) if type(kind) is int else None
    if known is None:
        raise ProtocolError(f"a message of unknown kind {kind!r}")
    after = TABLE[state].get(kind) if sender in SENDERS.get(kind, ()) else None
    if after is None:
        raise ProtocolError(f"the {sender.value} may not send {known.name!r} to a call that is {state.value}")
    return after


class Conversation:
    """The calls of one connection by the letter of the table.

    The transports keep their own dictionaries for speed and ask `step` when a message does not fit; this is the same
    law for whoever wants it whole: tests, recorded conversations, a peer written elsewhere.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        self.open: dict[int, State] = {}
        self.newest = 0

    def state(self, ident: int) -> State:
        return self.open.get(ident, State.CLOSED if ident <= self.newest else State.IDLE)

    def send(self, ident: int, kind: int) -> State:
        return self._move(ident, kind, self.side)

    def receive(self, ident: Any, kind: Any) -> State | None:
        """The call's state after it; None for what concerns the connection."""
        if type(ident) is not int or ident < 0:
            raise ProtocolError(f"a message bears the id {ident!r}")
        if ident == 0:
            if kind not in CONNECTION_KINDS:
                raise ProtocolError(f"a message of kind {kind!r} bears no call's id")
            return None
        return self._move(ident, kind, self.side.other)

    def _move(self, ident: int, kind: int, sender: Side) -> State:
        after = step(self.state(ident), kind, sender)
        self.newest = max(self.newest, ident)
        if after is State.CLOSED:
            self.open.pop(ident, None)
        else:
            self.open[ident] = after
        return after

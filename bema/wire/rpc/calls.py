"""The states of a call on a connection, as one table for both ends.

Law 1: `TABLE` alone decides what a message does to a call, and an illegal move fails in `step` alone.
Law 2: this module does not know which end it plays. Both ends hold the same state for a call, and messages move it, sent or
received. A message that crosses the end of its call is late, not illegal.
"""

from __future__ import annotations

import enum
from typing import Any, Final

from bema.core.errors import ProtocolError
from bema.wire.rpc import frames as f

FLOOR: Final = 16 * 1024  # bytes that every stream may have unread, however full the connection's window is
GRANTS: Final = 4  # a receiver gives consumed bytes back in portions of this part of a window


class CallSide(enum.Enum):
    CALLER = "caller"
    CALLEE = "callee"

    @property
    def other(self) -> CallSide:
        return CallSide.CALLEE if self is CallSide.CALLER else CallSide.CALLER


class CallState(enum.Enum):
    IDLE = "idle"
    ONE = "one"  # one answer is owed
    MANY = "many"  # items are owed
    ONE_IN = "one, input open"
    MANY_IN = "many, input open"
    CLOSED = "closed"


_ONE = {f.ANSWER: CallState.CLOSED, f.ERROR: CallState.CLOSED, f.CANCEL: CallState.CLOSED, f.STOP: CallState.ONE}
_MANY = {
    f.ITEM: CallState.MANY,
    f.END: CallState.CLOSED,
    f.ERROR: CallState.CLOSED,
    f.CANCEL: CallState.CLOSED,
    f.STOP: CallState.MANY,
    f.CREDIT: CallState.MANY,
}

TABLE: Final[dict[CallState, dict[int, CallState]]] = {
    CallState.IDLE: {
        f.UNARY: CallState.ONE,
        f.STREAM: CallState.MANY,
        f.COLLECT: CallState.ONE_IN,
        f.BOTH: CallState.MANY_IN,
    },
    # credit for an input may still be on its way when the input ends
    CallState.ONE: {**_ONE, f.CREDIT: CallState.ONE},
    CallState.MANY: _MANY,
    CallState.ONE_IN: {
        **_ONE,
        f.STOP: CallState.ONE_IN,
        f.INPUT: CallState.ONE_IN,
        f.INPUT_END: CallState.ONE,
        f.CREDIT: CallState.ONE_IN,
    },
    CallState.MANY_IN: {
        **_MANY,
        f.ITEM: CallState.MANY_IN,
        f.STOP: CallState.MANY_IN,
        f.CREDIT: CallState.MANY_IN,
        f.INPUT: CallState.MANY_IN,
        f.INPUT_END: CallState.MANY,
    },
    # what crossed the end on its way is late; a request is not here, for an id opens one call only
    CallState.CLOSED: dict.fromkeys(
        (f.INPUT, f.INPUT_END, f.CANCEL, f.STOP, f.CREDIT, f.ANSWER, f.ITEM, f.END, f.ERROR), CallState.CLOSED
    ),
}

SENDERS: Final[dict[int, frozenset[CallSide]]] = {
    **dict.fromkeys((*f.REQUESTS, f.INPUT, f.INPUT_END, f.CANCEL, f.STOP), frozenset({CallSide.CALLER})),
    **dict.fromkeys((f.ANSWER, f.ITEM, f.END, f.ERROR), frozenset({CallSide.CALLEE})),
    f.CREDIT: frozenset(CallSide),
}


def step(state: CallState, kind: Any, sender: CallSide) -> CallState:
    """The state of a call after a message; `ProtocolError` where the sender may not send it in this state."""
    known = f.KINDS.get(kind) if type(kind) is int else None
    if known is None:
        raise ProtocolError(f"a message of unknown kind {kind!r}")
    after = TABLE[state].get(kind) if sender in SENDERS.get(kind, ()) else None
    if after is None:
        raise ProtocolError(f"the {sender.value} may not send {known.name!r} to a call that is {state.value}")
    return after

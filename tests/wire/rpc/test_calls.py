"""The table of calls: what each message does in each state, and what two ends can never do to each other."""

from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bema.core.errors import ProtocolError
from bema.wire.rpc import frames as f
from bema.wire.rpc.calls import SENDERS, TABLE, CallSide, CallState, step

CONNECTION_KINDS = frozenset({f.HELLO, f.PING, f.PONG, f.GOAWAY, f.CREDIT})


class Conversation:
    """The calls of one connection by the letter of the table.

    The connections keep their own dictionaries for speed and ask `step` when a message does not fit; this is the same law
    whole.
    """

    def __init__(self, side: CallSide) -> None:
        self.side = side
        self.open: dict[int, CallState] = {}
        self.newest = 0

    def state(self, ident: int) -> CallState:
        return self.open.get(ident, CallState.CLOSED if ident <= self.newest else CallState.IDLE)

    def send(self, ident: int, kind: int) -> CallState:
        return self._move(ident, kind, self.side)

    def receive(self, ident: Any, kind: Any) -> CallState | None:
        """The call's state after it; None for what concerns the connection."""
        if type(ident) is not int or ident < 0:
            raise ProtocolError(f"a message bears the id {ident!r}")
        if ident == 0:
            if kind not in CONNECTION_KINDS:
                raise ProtocolError(f"a message of kind {kind!r} bears no call's id")
            return None
        return self._move(ident, kind, self.side.other)

    def _move(self, ident: int, kind: int, sender: CallSide) -> CallState:
        after = step(self.state(ident), kind, sender)
        self.newest = max(self.newest, ident)
        if after is CallState.CLOSED:
            self.open.pop(ident, None)
        else:
            self.open[ident] = after
        return after


LIVES = [
    ([("caller", f.UNARY), ("callee", f.ANSWER)], CallState.CLOSED),
    ([("caller", f.UNARY), ("callee", f.ERROR)], CallState.CLOSED),
    ([("caller", f.UNARY), ("caller", f.CANCEL)], CallState.CLOSED),
    ([("caller", f.STREAM), ("callee", f.ITEM), ("caller", f.CREDIT), ("callee", f.END)], CallState.CLOSED),
    ([("caller", f.STREAM), ("callee", f.ITEM), ("caller", f.STOP)], CallState.MANY),
    ([("caller", f.COLLECT), ("caller", f.INPUT), ("callee", f.CREDIT), ("caller", f.INPUT_END)], CallState.ONE),
    ([("caller", f.COLLECT), ("callee", f.ANSWER), ("caller", f.INPUT)], CallState.CLOSED),
    ([("caller", f.BOTH), ("callee", f.ITEM), ("caller", f.INPUT), ("caller", f.INPUT_END)], CallState.MANY),
    ([("caller", f.BOTH), ("callee", f.END), ("caller", f.INPUT_END)], CallState.CLOSED),
]


@pytest.mark.parametrize(("life", "after"), LIVES)
def test_lives_of_calls(life, after):
    state = CallState.IDLE
    for side, kind in life:
        state = step(state, kind, CallSide(side))
    assert state is after


@pytest.mark.parametrize(
    ("state", "kind", "sender"),
    [
        (CallState.IDLE, f.ANSWER, CallSide.CALLEE),
        (CallState.IDLE, f.CANCEL, CallSide.CALLER),
        (CallState.ONE, f.ITEM, CallSide.CALLEE),
        (CallState.ONE, f.END, CallSide.CALLEE),
        (CallState.ONE, f.ANSWER, CallSide.CALLER),
        (CallState.ONE, f.UNARY, CallSide.CALLER),
        (CallState.ONE, f.INPUT, CallSide.CALLER),
        (CallState.MANY, f.ANSWER, CallSide.CALLEE),
        (CallState.MANY, f.INPUT_END, CallSide.CALLER),
        (CallState.MANY, f.CANCEL, CallSide.CALLEE),
        (CallState.CLOSED, f.UNARY, CallSide.CALLER),
        (CallState.MANY, f.HELLO, CallSide.CALLER),
        (CallState.MANY, 99, CallSide.CALLER),
        (CallState.MANY, None, CallSide.CALLER),
        (CallState.MANY, [1], CallSide.CALLER),
        (CallState.MANY, True, CallSide.CALLER),
    ],
)
def test_an_illegal_message_is_a_protocol_error(state, kind, sender):
    with pytest.raises(ProtocolError):
        step(state, kind, sender)


def test_every_kind_has_a_sender_or_belongs_to_the_connection():
    assert set(f.KINDS) == set(SENDERS) | CONNECTION_KINDS


def test_every_state_can_end_and_the_end_is_final():
    for state in (CallState.ONE, CallState.MANY, CallState.ONE_IN, CallState.MANY_IN):
        assert TABLE[state][f.CANCEL] is CallState.CLOSED
        assert TABLE[state][f.ERROR] is CallState.CLOSED
    assert set(TABLE[CallState.CLOSED].values()) == {CallState.CLOSED}


@pytest.mark.parametrize(
    ("ident", "kind"), [(-1, f.UNARY), ("1", f.UNARY), ([], f.UNARY), (0, f.UNARY), (None, f.PING)]
)
def test_an_id_is_a_positive_number(ident, kind):
    with pytest.raises(ProtocolError):
        Conversation(CallSide.CALLEE).receive(ident, kind)


def test_ids_ascend_and_are_never_used_again():
    callee = Conversation(CallSide.CALLEE)
    callee.receive(5, f.UNARY)
    callee.send(5, f.ANSWER)
    for used in (3, 5):
        with pytest.raises(ProtocolError):
            callee.receive(used, f.UNARY)


class TwoEnds(RuleBasedStateMachine):
    """Two ends that each send only what their own table allows, over lines of any delay, never surprise each other."""

    def __init__(self):
        super().__init__()
        self.ends = {side: Conversation(side) for side in CallSide}
        self.lines: dict[CallSide, deque[tuple[int, int]]] = {side: deque() for side in CallSide}  # towards `side`
        self.last = 0

    def _say(self, side, ident, kind):
        self.ends[side].send(ident, kind)
        self.lines[side.other].append((ident, kind))

    @rule(kind=st.sampled_from(sorted(f.REQUESTS)))
    def ask(self, kind):
        self.last += 1
        self._say(CallSide.CALLER, self.last, kind)

    @precondition(lambda self: any(end.open for end in self.ends.values()))
    @rule(data=st.data())
    def say(self, data):
        side = data.draw(st.sampled_from([s for s, end in self.ends.items() if end.open]))
        ident = data.draw(st.sampled_from(sorted(self.ends[side].open)))
        allowed = [k for k in TABLE[self.ends[side].open[ident]] if side in SENDERS[k]]
        self._say(side, ident, data.draw(st.sampled_from(allowed)))

    @precondition(lambda self: any(self.lines.values()))
    @rule(data=st.data())
    def arrive(self, data):
        side = data.draw(st.sampled_from([s for s, line in self.lines.items() if line]))
        self.ends[side].receive(*self.lines[side].popleft())

    @invariant()
    def when_nothing_is_under_way_both_ends_agree(self):
        if not any(self.lines.values()):
            assert self.ends[CallSide.CALLER].open == self.ends[CallSide.CALLEE].open


TwoEnds.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_two_ends = TwoEnds.TestCase

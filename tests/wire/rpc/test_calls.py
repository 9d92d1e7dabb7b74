"""The table of calls: what each message does in each state, and what two ends can never do to each other."""

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bema.core.errors import ProtocolError
from bema.wire import frames as f
from bema.wire.calls import CONNECTION_KINDS, SENDERS, TABLE, Conversation, Side, State, step

LIVES = [
    ([("caller", f.UNARY), ("callee", f.ANSWER)], State.CLOSED),
    ([("caller", f.UNARY), ("callee", f.ERROR)], State.CLOSED),
    ([("caller", f.UNARY), ("caller", f.CANCEL)], State.CLOSED),
    ([("caller", f.STREAM), ("callee", f.ITEM), ("caller", f.CREDIT), ("callee", f.END)], State.CLOSED),
    ([("caller", f.STREAM), ("callee", f.ITEM), ("caller", f.STOP)], State.MANY),
    ([("caller", f.COLLECT), ("caller", f.INPUT), ("callee", f.CREDIT), ("caller", f.INPUT_END)], State.ONE),
    ([("caller", f.COLLECT), ("callee", f.ANSWER), ("caller", f.INPUT)], State.CLOSED),
    ([("caller", f.BOTH), ("callee", f.ITEM), ("caller", f.INPUT), ("caller", f.INPUT_END)], State.MANY),
    ([("caller", f.BOTH), ("callee", f.END), ("caller", f.INPUT_END)], State.CLOSED),
]


@pytest.mark.parametrize(("life", "after"), LIVES)
def test_lives_of_calls(life, after):
    state = State.IDLE
    for side, kind in life:
        state = step(state, kind, Side(side))
    assert state is after


@pytest.mark.parametrize(
    ("state", "kind", "sender"),
    [
        (State.IDLE, f.ANSWER, Side.CALLEE),
        (State.IDLE, f.CANCEL, Side.CALLER),
        (State.ONE, f.ITEM, Side.CALLEE),
        (State.ONE, f.END, Side.CALLEE),
        (State.ONE, f.ANSWER, Side.CALLER),
        (State.ONE, f.UNARY, Side.CALLER),
        (State.ONE, f.INPUT, Side.CALLER),
        (State.MANY, f.ANSWER, Side.CALLEE),
        (State.MANY, f.INPUT_END, Side.CALLER),
        (State.MANY, f.CANCEL, Side.CALLEE),
        (State.CLOSED, f.UNARY, Side.CALLER),
        (State.MANY, f.HELLO, Side.CALLER),
        (State.MANY, 99, Side.CALLER),
        (State.MANY, None, Side.CALLER),
        (State.MANY, [1], Side.CALLER),
        (State.MANY, True, Side.CALLER),
    ],
)
def test_an_illegal_message_is_a_protocol_error(state, kind, sender):
    with pytest.raises(ProtocolError):
        step(state, kind, sender)


def test_every_kind_has_a_sender_or_belongs_to_the_connection():
    assert set(f.KINDS) == set(SENDERS) | CONNECTION_KINDS


def test_every_state_can_end_and_the_end_is_final():
    for state in (State.ONE, State.MANY, State.ONE_IN, State.MANY_IN):
        assert TABLE[state][f.CANCEL] is State.CLOSED
        assert TABLE[state][f.ERROR] is State.CLOSED
    assert set(TABLE[State.CLOSED].values()) == {State.CLOSED}


@pytest.mark.parametrize(
    ("ident", "kind"), [(-1, f.UNARY), ("1", f.UNARY), ([], f.UNARY), (0, f.UNARY), (None, f.PING)]
)
def test_an_id_is_a_positive_number(ident, kind):
    with pytest.raises(ProtocolError):
        Conversation(Side.CALLEE).receive(ident, kind)


def test_ids_ascend_and_are_never_used_again():
    callee = Conversation(Side.CALLEE)
    callee.receive(5, f.UNARY)
    callee.send(5, f.ANSWER)
    for used in (3, 5):
        with pytest.raises(ProtocolError):
            callee.receive(used, f.UNARY)


class TwoEnds(RuleBasedStateMachine):
    """Two ends that each send only what their own table allows, over lines of any delay, never surprise each other."""

    def __init__(self):
        super().__init__()
        self.ends = {side: Conversation(side) for side in Side}
        self.lines: dict[Side, deque[tuple[int, int]]] = {side: deque() for side in Side}  # towards `side`
        self.last = 0

    def _say(self, side, ident, kind):
        self.ends[side].send(ident, kind)
        self.lines[side.other].append((ident, kind))

    @rule(kind=st.sampled_from(sorted(f.REQUESTS)))
    def ask(self, kind):
        self.last += 1
        self._say(Side.CALLER, self.last, kind)

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
            assert self.ends[Side.CALLER].open == self.ends[Side.CALLEE].open


TwoEnds.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_two_ends = TwoEnds.TestCase

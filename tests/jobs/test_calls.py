"""The states of a durable call: one table, one place that moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import Conflict
from bema.core.naming import first_call_id, is_call_id, new_call_id
from bema.jobs.calls import MOVES, CallRecord, DurableState, moved


def test_every_state_has_its_moves():
    assert MOVES.keys() == set(DurableState)


@pytest.mark.parametrize("state", DurableState)
@pytest.mark.parametrize("to", DurableState)
def test_a_move_that_is_not_in_the_table_is_refused(state, to):
    record = CallRecord(id="1", route="t.t.f", created=1, state=state)
    if to in MOVES[state]:
        assert moved(record, to).state is to
        return
    with pytest.raises(Conflict, match=f"is {state}, and cannot become {to}") as refused:
        moved(record, to)
    assert refused.value.code == "bad_move"


@pytest.mark.parametrize("state", [DurableState.DONE, DurableState.CANCELLED])
def test_what_is_done_or_cancelled_never_changes_again(state):
    assert not MOVES[state]


@given(st.integers(0, 2**54), st.integers(1, 2**40))
def test_ids_sort_by_creation(instant, later):
    assert first_call_id(instant) <= new_call_id(instant) < new_call_id(instant + later)


@given(st.text())
def test_nothing_else_is_an_id(text):
    assert is_call_id(new_call_id(5))
    assert not is_call_id(text) or len(text) == 21

"""The budget lets a burst and a fifth of the calls be repeated, no more."""

from bema.runtime.retries import Budget


def taken(budget: Budget) -> int:
    count = 0
    while count < 10_000 and budget.take():
        count += 1
    return count


def test_a_burst_then_a_fifth_of_the_calls():
    budget = Budget()
    assert taken(budget) == 256
    assert not budget.take()
    budget.calls += 100
    assert taken(budget) == 20
    budget.calls += 1_000_000
    assert taken(budget) == 256, "what was not used is not saved up without end"

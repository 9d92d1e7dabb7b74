from bema.deploy.keeper.supervisor import Backoff


def test_the_first_restart_is_immediate_and_the_wait_grows():
    backoff = Backoff()
    waits = [backoff.next(lived=0.1) for _ in range(9)]
    assert waits[0] == 0.0
    assert waits == sorted(waits)
    assert waits[-1] == waits[-2] == 5.0


def test_who_lived_well_is_restarted_at_once():
    backoff = Backoff()
    for _ in range(5):
        backoff.next(lived=0.1)
    assert backoff.next(lived=60.0) == 0.0

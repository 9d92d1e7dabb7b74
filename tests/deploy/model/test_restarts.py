"""When a deployment may be started again."""

from bema.deploy.model.restarts import KEPT, SECOND, Attempt, RestartPolicy, Verdict, begun, due, ended, served, verdict

POLICY = RestartPolicy()


def life(
    attempts: tuple[Attempt, ...], start: float, ready: float | None, end: float, **how: object
) -> tuple[Attempt, ...]:
    """One more instance: started, perhaps served, gone."""
    instance = len(attempts) + (attempts[-1].instance if attempts else 0) + 1
    attempts = begun(attempts, instance, round(start * SECOND))
    if ready is not None:
        attempts = served(attempts, instance, round(ready * SECOND))
    return ended(attempts, instance, round(end * SECOND), POLICY, **{"cause": "exited", "code": 1, **how})


def waits(attempts: tuple[Attempt, ...]) -> float:
    """Seconds from the last end to the next start."""
    return due(attempts, POLICY, attempts[-1].ended) / SECOND


def test_the_first_start_is_due_at_once():
    assert verdict((), POLICY) == (Verdict.START, 0)
    assert due((), POLICY, 0) == 0


def test_an_instance_that_served_is_started_again_at_once():
    died = life((), 0, 1, 2, signal=9)
    assert verdict(died, POLICY)[0] is Verdict.START
    assert waits(died) == 0


def test_five_short_lives_in_ten_seconds_are_a_crash_loop():
    attempts: tuple[Attempt, ...] = ()
    for n in range(4):
        attempts = life(attempts, n * 2, n * 2 + 0.1, n * 2 + 1)
        assert verdict(attempts, POLICY)[0] is Verdict.START
    attempts = life(attempts, 8, 8.1, 9)
    assert verdict(attempts, POLICY)[0] is Verdict.LOOPING
    assert waits(attempts) == 10


def test_five_lives_in_more_than_ten_seconds_are_not():
    attempts: tuple[Attempt, ...] = ()
    for n in range(12):
        attempts = life(attempts, n * 3, n * 3 + 0.1, n * 3 + 1)
    assert verdict(attempts, POLICY)[0] is Verdict.START


def test_a_crash_loop_waits_twice_as_long_each_time_up_to_five_minutes():
    attempts: tuple[Attempt, ...] = ()
    now = 0.0
    seen = []
    for _ in range(40):
        attempts = life(attempts, now, now + 0.1, now + 0.2)
        now += 0.2 + waits(attempts)
        seen.append(waits(attempts))
    assert seen[:4] == [0, 0, 0, 0]
    assert seen[4:10] == [10, 20, 40, 80, 160, 300]
    assert set(seen[10:]) == {300}
    assert len(attempts) == KEPT


def test_a_life_of_a_whole_window_forgives():
    attempts: tuple[Attempt, ...] = ()
    for n in range(5):
        attempts = life(attempts, n, n + 0.1, n + 0.2)
    attempts = life(attempts, 20, 21, 31)
    assert verdict(attempts, POLICY)[0] is Verdict.START


def test_what_never_served_is_never_started_hot():
    attempts: tuple[Attempt, ...] = ()
    seen = []
    for n in range(12):
        attempts = life(attempts, n * 1000, None, n * 1000 + 1)
        assert verdict(attempts, POLICY)[0] is Verdict.FAILED
        seen.append(waits(attempts))
    assert seen[:5] == [1, 2, 4, 8, 16]
    assert seen[-1] == 300


def test_serving_once_forgives_failed_starts():
    attempts = life(life((), 0, None, 1), 5, 6, 7)
    assert verdict(attempts, POLICY)[0] is Verdict.START


def test_what_was_stopped_sleeps_and_what_was_lost_is_started():
    assert verdict(life((), 0, 1, 2, cause="stopped"), POLICY)[0] is Verdict.ASLEEP
    assert verdict(life((), 0, 1, 2, cause="lost"), POLICY)[0] is Verdict.START


def test_stopped_for_never_listening_is_a_failed_start():
    attempts = life((), 0, None, 30, cause="stopped")
    assert attempts[-1].cause == "start_timeout"
    assert verdict(attempts, POLICY)[0] is Verdict.FAILED


def test_an_end_is_written_once_and_an_open_attempt_keeps_the_verdict_before_it():
    failed = life((), 0, None, 1)
    assert ended(failed, failed[-1].instance, 99, POLICY, cause="lost") == failed
    assert verdict(begun(failed, 7, 5 * SECOND), POLICY)[0] is Verdict.FAILED


def test_a_clock_that_was_set_back_does_not_hold_a_start_for_an_hour():
    failed = life((), 3600, None, 3601)
    assert due(failed, POLICY, 0) == 0


def test_only_the_newest_end_keeps_its_lines():
    attempts = life(life((), 0, 1, 2, log=("first",)), 3, 4, 5, log=("second",))
    assert [a.log for a in attempts] == [(), ("second",)]

"""Which calls may run: concurrency, groups, rates, and that none is left behind."""

import heapq
import math
from collections import Counter
from copy import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.durable import Queue
from bema.core.errors import BadDeclaration
from bema.core.spec import EndpointSpec, Parameter, Shape
from bema.jobs.admission import CallAdmission, TokenBucket, group_of
from bema.jobs.calls import CallRecord


def call(number: int, route: str = "t.t.f", **more) -> CallRecord:
    return CallRecord(id=f"{number:05d}", route=route, created=0, **more)


def entry(record: CallRecord) -> tuple[int, int, str]:
    return record.due, -record.priority, record.id


def admission(**queues: Queue) -> CallAdmission:
    return CallAdmission(queues.get)


def test_an_endpoint_runs_as_many_calls_as_it_says():
    room = admission(f=Queue(concurrency=2))
    first, second, third = (call(n, "f") for n in range(3))
    for one in (first, second):
        assert room.admit(one, 0.0) == 0
        room.begun(one, 0.0)
    assert room.admit(third, 0.0) == math.inf
    assert room.admit(call(4, "other"), 0.0) == 0, "another endpoint has its own"
    room.hold(entry(third), third, 0.0)
    assert room.released(0.0) == []
    room.ended(first)
    assert room.released(0.0) == [entry(third)]
    assert room.admit(third, 0.0) == 0


def test_calls_of_a_group_run_one_after_the_other_where_nothing_else_is_said():
    room = admission()
    room.begun(call(1, group="a"), 0.0)
    assert room.admit(call(2, group="a"), 0.0) == math.inf
    assert room.admit(call(3, "t.t.other", group="a"), 0.0) == math.inf, "a group is of the whole component"
    assert room.admit(call(4, group="b"), 0.0) == 0
    assert room.admit(call(5), 0.0) == 0


def test_groups_that_are_done_are_forgotten():
    room = admission()
    for n in range(100):
        room.begun(call(n, group=f"order {n}"), 0.0)
        room.ended(call(n, group=f"order {n}"))
    assert not room._groups
    assert not room._running


def test_a_group_may_have_more_than_one():
    room = admission(f=Queue(per_group=2))
    for n in range(2):
        room.begun(call(n, "f", group="a"), 0.0)
    held = call(2, "f", group="a")
    assert room.admit(held, 0.0) == math.inf
    room.hold(entry(held), held, 0.0)
    room.ended(call(0, "f", group="a"))
    assert room.released(0.0) == [entry(held)]


def test_a_rate_lets_a_burst_through_and_then_one_at_a_time():
    room = admission(f=Queue(rate=3, per=1.5))
    for n in range(3):
        assert room.admit(call(n, "f"), 10.0) == 0
        room.begun(call(n, "f"), 10.0)
    late = call(3, "f")
    assert room.admit(late, 10.0) == pytest.approx(0.5)
    room.hold(entry(late), late, 10.0)
    assert room.wait(10.25) == pytest.approx(0.25)
    assert room.released(10.25) == []
    assert room.released(10.5) == [entry(late)]
    assert room.wait(10.5) is None


def test_a_call_that_goes_on_needs_no_new_turn():
    room = admission(f=Queue(rate=1, per=3600))
    room.begun(call(1, "f"), 0.0)
    room.ended(call(1, "f"))
    assert room.admit(call(1, "f", attempts=1), 0.0) == 0, "it slept, or its owner died"
    assert room.admit(call(2, "f"), 0.0) == pytest.approx(3600)


def test_a_call_held_by_its_group_leaves_its_room_to_the_next():
    room = admission(f=Queue(concurrency=2))
    busy, same, other = call(1, "f", group="a"), call(3, "f", group="a"), call(4, "f")
    full = call(2, "f")
    for one in (busy, full):
        room.begun(one, 0.0)
    for one in (same, other):
        room.hold(entry(one), one, 0.0)
    room.ended(full)
    assert room.released(0.0) == [entry(same)]
    assert room.admit(same, 0.0) == math.inf
    room.hold(entry(same), same, 0.0)
    assert room.released(0.0) == [entry(other)]


def test_a_held_call_that_is_gone_takes_nobodys_turn():
    room = admission(f=Queue(concurrency=1))
    room.begun(call(1, "f"), 0.0)
    for n in (2, 3):
        room.hold(entry(call(n, "f")), call(n, "f"), 0.0)
    room.ended(call(1, "f"))
    assert room.released(0.0) == [entry(call(2, "f"))]
    # it was cancelled: nobody begins it, and nobody says so
    assert room.released(0.0) == [entry(call(3, "f"))]


def test_a_queue_that_says_something_else_is_gone_by_at_once():
    queues = {"f": Queue(concurrency=1)}
    room = CallAdmission(queues.get)
    room.begun(call(0, "f"), 0.0)
    for n in (1, 2, 3):
        room.hold(entry(call(n, "f")), call(n, "f"), 0.0)
    queues["f"] = Queue(concurrency=3)
    room.reconsider()
    assert room.released(0.0) == [entry(call(1, "f")), entry(call(2, "f"))]
    queues["f"] = Queue(rate=1, per=60)
    assert room.admit(call(1, "f"), 0.0) == 0
    room.begun(call(1, "f"), 0.0)
    room.hold(entry(call(2, "f")), call(2, "f"), 0.0)
    del queues["f"]
    assert entry(call(2, "f")) in room.released(0.0)


@pytest.mark.parametrize(
    "wrong",
    [{"concurrency": 0}, {"per_group": 0}, {"rate": 1.5}, {"rate": True}, {"per": 0}, {"per": math.nan}, {"group": 1}],
)
def test_a_queue_that_lets_nothing_run_is_refused(wrong):
    with pytest.raises(BadDeclaration, match="Queue"):
        Queue(**wrong)


def test_a_parameter_names_the_group():
    def spec(queue: Queue | None) -> EndpointSpec:
        parameters = (Parameter("account", str), Parameter("size", int, required=False, default=3))
        return EndpointSpec("f", Shape.UNARY, parameters, facts={} if queue is None else {"jobs": {"queue": queue}})

    assert group_of(spec(None), {"account": "7"}) == ""
    assert group_of(spec(Queue()), {"account": "7"}) == ""
    assert group_of(spec(Queue(group="account")), {"account": "7"}) == "account=7"
    assert group_of(spec(Queue(group="size")), {"account": "7"}) == "size=3", "its default is a value too"
    long = [group_of(spec(Queue(group="account")), {"account": "x" * 1000 + end}) for end in "aab"]
    assert long[0] == long[1] != long[2]
    assert len(long[0]) < 100


@given(st.integers(1, 5), st.lists(st.floats(0, 10, allow_nan=False), max_size=60))
def test_a_bucket_never_gives_more_than_its_burst_and_its_rate(rate, pauses):
    bucket, now, taken = TokenBucket(rate, 2.0, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        if bucket.there(now):
            bucket.take(now)
            taken += 1
        assert taken <= rate + now * rate / 2.0 + 1e-6
        assert copy(bucket).there(now + bucket.wait(now)), "after its wait one is there"


ROUTES = {
    "free": None,
    "two": Queue(concurrency=2),
    "pairs": Queue(concurrency=3, per_group=2),
    "slow": Queue(rate=2, per=1.0),
    "all": Queue(concurrency=2, per_group=1, rate=3, per=2.0),
}
CALLS = st.lists(
    st.tuples(st.sampled_from([*ROUTES]), st.sampled_from(["", "a", "b"]), st.integers(0, 2), st.integers(0, 1)),
    max_size=40,
)


@given(CALLS, st.lists(st.integers(0, 39)), st.integers(1, 4))
def test_whatever_comes_no_bound_is_passed_and_all_that_may_run_does(made, order, room):
    """A dispatcher over the admission, whose calls end in any order."""
    admission = CallAdmission(ROUTES.get)
    records = {
        f"{n:05d}": call(n, route, group=group, priority=priority, attempts=attempts)
        for n, (route, group, priority, attempts) in enumerate(made)
    }
    queue = [entry(record) for record in records.values()]
    heapq.heapify(queue)
    running: dict[str, CallRecord] = {}
    begun: Counter[str] = Counter()
    ended, now, order = 0, 0.0, list(order)
    while ended < len(records):
        # one turn
        while True:
            for back in admission.released(now):
                heapq.heappush(queue, back)
            if not queue or len(running) >= room:
                break
            first = heapq.heappop(queue)
            record = records[first[2]]
            if admission.admit(record, now):
                admission.hold(first, record, now)
                continue
            admission.begun(record, now)
            running[record.id] = record
            begun[record.id] += 1
        groups = Counter(record.group for record in running.values() if record.group)
        for route, said in ROUTES.items():
            of_route = [record for record in running.values() if record.route == route]
            assert said is None or said.concurrency is None or len(of_route) <= said.concurrency
            for record in of_route:
                bound = max(2 if r.route == "pairs" else 1 for r in running.values() if r.group == record.group)
                assert not record.group or groups[record.group] <= bound
        if len(running) < room:
            left = [record for id, record in records.items() if not begun[id]]
            assert all(admission.admit(record, now) for record in left), "nothing that may run is left behind"
        # then one ends, or time passes until a rate lets one begin
        if running:
            chosen = sorted(running)[order.pop() % len(running) if order else 0]
            admission.ended(running.pop(chosen))
            ended += 1
        else:
            wait = admission.wait(now)
            assert wait is not None
            assert wait > 0
            now += wait
    assert set(begun.values()) <= {1}

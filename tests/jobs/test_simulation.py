"""Many schedules of durable calls, each another order of events, crashes and failing writes; and that a broken owner is caught."""

import os
import random
import time

import msgspec
import pytest

from bema.jobs import admission, execution, ledger, runner, session, worker
from bema.jobs.calls import DurableState, moved
from bema.jobs.journal import Journal, JournalEntry
from bema.runtime import tasks
from tests.jobs.plans import expected, made, matches
from tests.jobs.seeded_loop import SeededLoop
from tests.jobs.simulation import Violation, simulate

SECONDS = 90 if os.environ.get("CI") else 15
PARTS = 2  # which run beside each other


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.timeout(SECONDS * 4)
def test_whatever_the_schedule_every_call_comes_to_its_end(part, record_property):
    """Other seeds in each run: a failure names its own, and `simulate(seed)` shows it again."""
    until = time.monotonic() + SECONDS / PARTS
    first, schedules, crashes = random.randrange(10**9), 0, 0
    while time.monotonic() < until:
        crashes += simulate(first + schedules).crashes
        schedules += 1
    record_property("schedules", schedules)
    print(f"{schedules} schedules from seed {first} on, {crashes} crashes")
    assert crashes > schedules / 10


@pytest.mark.parametrize("seed", range(60))
def test_a_seed_gives_the_same_schedule_again(seed):
    assert simulate(seed) == simulate(seed)


def test_a_loop_jumps_to_its_next_timer_and_shuffles_what_is_ready():
    order: list[int] = []

    async def story(loop):
        loop.call_later(3 * 86_400, order.append, 0)
        for number in range(1, 8):
            loop.call_soon(order.append, number)
        future = loop.create_future()
        loop.call_later(3 * 86_400 + 1, future.set_result, None)
        await future
        return loop.time()

    loop = SeededLoop(random.Random(1))
    assert loop.run(story(loop), lambda: None) == 3 * 86_400 + 1
    assert order[-1] == 0
    assert sorted(order[:-1]) == list(range(1, 8)) != order[:-1]


def test_a_plan_without_races_has_one_end():
    for seed in range(100):
        plan = made(random.Random(seed))
        (_, values) = expected(plan)
        assert matches(values, values)
        assert not matches(values, [*values, 1])


# broken owners: what a simulation is worth is what it catches


def forgets_a_result(patch):
    async def give(self, task):
        if not self._completed or self._history:
            return await before(self, task)
        completion = self._completed.popleft()
        if completion.operation.place in self._pending:
            entry = JournalEntry(
                order=99,
                place=completion.operation.place,
                kind="step",
                value=completion.value,
                failure=completion.failure,
            )
            self._give_out(completion.operation, entry)
        return True

    before = execution.Execution._give_next
    patch.setattr(execution.Execution, "_give_next", give)


def answers_before_it_is_written(patch):
    async def create(self, record, arguments):
        self._live[record.id] = record
        return record

    patch.setattr(ledger.Ledger, "create", create)


def lets_a_stale_claim_write(patch):
    async def claim(self, id, version):
        before = self._must_live(id)
        return await self._put(moved(before, DurableState.RUNNING, fence=max(0, before.fence - 1)))

    patch.setattr(ledger.Ledger, "claim", claim)


def loses_a_wake_up(patch):
    before = runner.Runner._schedule

    def schedule(self, record, at=None):
        if record.state is not DurableState.SLEEPING:
            before(self, record, at)

    patch.setattr(runner.Runner, "_schedule", schedule)


def runs_a_group_at_once(patch):
    def begun(self, record, now):
        """It counts nobody."""

    patch.setattr(admission.CallAdmission, "begun", begun)


def forgets_what_ran_when_its_owner_died(patch):
    async def on(state, limits):
        found = ledger.Ledger(state, limits)
        async for _, value in ledger._scanned(state, "live/"):
            record = ledger._record(value)
            if record.state is not DurableState.RUNNING:
                found._live[record.id] = record
        return found

    patch.setattr(ledger.Ledger, "on", staticmethod(on))


def gives_a_replay_another_order(patch):
    before = Journal

    def journal(entries):
        entries = list(entries)
        if len(entries) > 1:
            entries[0], entries[1] = (
                msgspec.structs.replace(entries[0], order=entries[1].order),
                msgspec.structs.replace(entries[1], order=entries[0].order),
            )
        return before(entries)

    patch.setattr(worker, "Journal", journal)


def undoes_nothing(patch):
    async def compensate(self):
        self.compensations.clear()

    patch.setattr(execution.Execution, "_compensate", compensate)


def drops_what_was_asked_for_when_who_asked_leaves(patch):
    async def through(self, work):
        return await work

    patch.setattr(tasks.Tasks, "through", through)


def drops_what_a_lost_member_handed_in(patch):
    async def hand_in(self, id, work):
        await work

    patch.setattr(runner.Runner, "hand_in", hand_in)


def forgets_what_a_lost_member_ran(patch):
    patch.setattr(session.WorkerSession, "lose", lambda self: None)


@pytest.mark.parametrize(
    "broken",
    [
        forgets_a_result,
        answers_before_it_is_written,
        lets_a_stale_claim_write,
        loses_a_wake_up,
        runs_a_group_at_once,
        forgets_what_ran_when_its_owner_died,
        gives_a_replay_another_order,
        undoes_nothing,
        drops_what_was_asked_for_when_who_asked_leaves,
        drops_what_a_lost_member_handed_in,
        forgets_what_a_lost_member_ran,
    ],
    ids=lambda broken: broken.__name__,
)
def test_a_broken_owner_is_caught(broken, monkeypatch):
    broken(monkeypatch)
    with pytest.raises(Violation, match="seed"):
        for seed in range(400):
            simulate(seed)

"""plan() with bounds and load: how many replicas there are is decided there, and holds whatever the picture is."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
from hypothesis import given, settings, strategies

from bema.core.instance import State
from bema.deploy.model.deployment import Rollout
from bema.deploy.model.function import Scale
from bema.deploy.model.plan import (
    Action,
    GiveShare,
    Lost,
    StartBuild,
    StartReplica,
    StopReplica,
    Wait,
    plan,
)
from bema.deploy.model.replica import Replica
from bema.deploy.model.restarts import SECOND, Attempt, RestartPolicy, begun, ended, served
from bema.deploy.model.scaling import Wish
from tests.deploy.model.test_plan import DAWN, ONE, actual, built, deployment

POLICY = RestartPolicy()
LIVE = (State.NEW, State.STARTING, State.SERVING)


@dataclasses.dataclass
class Picture:
    """What a plan looks at."""

    rollout: Rollout
    replicas: list[Replica]
    scale: Scale
    wish: Wish
    woken: bool
    now: int = DAWN

    def plan(self) -> list[Action]:
        return plan(
            [self.rollout],
            self.replicas,
            self.now,
            POLICY,
            woken=frozenset("a") if self.woken else frozenset(),
            scales={"a": self.scale},
            wishes={"a": self.wish},
        )

    def after(self, actions: list[Action]) -> Picture:
        """The same once the actions are set going."""
        stopped = {action.instance for action in actions if isinstance(action, StopReplica)}
        replicas = [
            msgspec.structs.replace(r, state=State.DRAINING) if r.instance in stopped else r for r in self.replicas
        ]
        rollout = self.rollout
        for number, action in enumerate(actions):
            match action:
                case StartReplica(_, version):
                    replicas.append(actual(1000 + number, State.NEW, version, self.now))
                case GiveShare(instance, share):
                    replicas = [r.routed(share, ONE.terms, self.now) if r.instance == instance else r for r in replicas]
                case Lost(_, instance):
                    attempts = ended(rollout.status.attempts, instance, self.now, POLICY, cause="lost")
                    rollout = rollout.after(rollout.status.tried(attempts, self.now))
        return dataclasses.replace(self, replicas=replicas, rollout=rollout)

    def needed(self) -> int:
        return min(self.scale.max, max(self.scale.min, self.wish.replicas))


@strategies.composite
def pictures(draw: Any) -> Picture:
    least = draw(strategies.integers(0, 3))
    scale = Scale(least, draw(strategies.integers(max(1, least), 5)))
    wish = Wish(draw(strategies.integers(0, 6)), asked=draw(strategies.booleans()))
    states = strategies.sampled_from((*LIVE, State.DRAINING))
    replicas = [
        actual(
            number,
            draw(states),
            draw(strategies.sampled_from(("v1", "v1", "v1", "v0"))),
            DAWN - draw(strategies.integers(0, 40)) * SECOND,
        )
        for number in range(1, draw(strategies.integers(0, 7)) + 1)
    ]
    attempts: tuple[Attempt, ...] = ()
    for replica in replicas:
        attempts = begun(attempts, replica.instance, replica.since)
    build = draw(strategies.sampled_from(("done", "done", "done", "pending", "failed")))
    return Picture(deployment("a", build, attempts), replicas, scale, wish, draw(strategies.booleans()))


def started(actions: list[Action]) -> int:
    return sum(isinstance(action, StartReplica) for action in actions)


@settings(max_examples=300, deadline=None)
@given(pictures())
def test_there_are_never_more_than_the_most(picture: Picture):
    actions = picture.plan()
    mine = [r for r in picture.replicas if r.version == "v1"]
    if started(actions):
        assert len(mine) + started(actions) <= picture.scale.max
    after = picture.after(actions)
    stoppable = [r for r in after.replicas if r.version == "v1" and r.state in (State.STARTING, State.SERVING)]
    assert len(stoppable) <= picture.scale.max


@settings(max_examples=300, deadline=None)
@given(pictures())
def test_applying_it_twice_does_nothing_twice(picture: Picture):
    again = picture.after(picture.plan())
    left = [a for a in again.plan() if not isinstance(a, Wait)]
    # a build that was begun is the orchestrator's to know of, as what was lost is followed by what waited for it
    assert not [a for a in left if isinstance(a, StopReplica)]
    if not [a for a in picture.plan() if isinstance(a, Lost)]:
        assert not [a for a in left if isinstance(a, StartReplica)]


@settings(max_examples=300, deadline=None)
@given(pictures())
def test_nothing_is_started_before_it_is_built(picture: Picture):
    if picture.rollout.status.build.state != "done":
        assert started(picture.plan()) == 0


@settings(max_examples=300, deadline=None)
@given(pictures())
def test_what_can_be_started_is_never_left_below_the_least(picture: Picture):
    """As long as nothing of another version is in the way, and no place is taken by what ends."""
    actions, mine = picture.plan(), [r for r in picture.replicas if r.version == "v1"]
    startable = picture.rollout.status.build.state == "done" and len(mine) == len(picture.replicas)
    # nor one that never served: its end tells when the next is due
    late = any(isinstance(a, StopReplica) and a.reason == "start_timeout" for a in actions)
    if startable and not late and not any(r.state is State.DRAINING for r in mine):
        stopped = {a.instance for a in actions if isinstance(a, StopReplica) and a.reason != "start_timeout"}
        live = [r for r in mine if r.instance not in stopped]
        assert len(live) + started(actions) >= max(picture.scale.min, min(picture.needed(), picture.scale.max))


@settings(max_examples=300, deadline=None)
@given(pictures())
def test_what_serves_is_stopped_after_what_does_not(picture: Picture):
    stopped = {a.instance for a in picture.plan() if isinstance(a, StopReplica) and a.reason != "start_timeout"}
    mine = [r for r in picture.replicas if r.version == "v1"]
    if any(r.state is State.SERVING for r in mine if r.instance in stopped):
        assert not [r for r in mine if r.state is State.STARTING and r.instance not in stopped]


@settings(max_examples=300, deadline=None)
@given(pictures())
def test_the_order_of_what_is_there_changes_nothing(picture: Picture):
    turned = dataclasses.replace(picture, replicas=picture.replicas[::-1])
    key = repr
    assert sorted(turned.plan(), key=key) == sorted(picture.plan(), key=key)


def scaled(replicas: list[Replica], scale: Scale, wish: Wish, now: int = DAWN, **more: Any) -> list[Action]:
    return plan([deployment(**more)], replicas, now, POLICY, scales={"a": scale}, wishes={"a": wish})


UP_TO_3 = Scale(min=0, max=3)
NONE = Wish()


def test_a_wish_brings_more_and_no_more_than_there_may_be():
    one = [actual()]
    assert scaled(one, UP_TO_3, Wish(1)) == []
    assert scaled(one, UP_TO_3, Wish(2)) == [StartReplica("a", "v1", slot=1)]
    assert scaled(one, UP_TO_3, Wish(9)) == [StartReplica("a", "v1", slot=1), StartReplica("a", "v1", slot=2)]


def test_of_those_too_many_the_oldest_stays():
    two = [actual(1, since=1), actual(2, since=2)]
    assert scaled(two, UP_TO_3, Wish(1)) == [StopReplica(2, "idle")]


def test_the_last_goes_and_comes_when_somebody_waits():
    assert scaled([actual()], UP_TO_3, NONE) == [StopReplica(1, "idle")]
    assert scaled([actual()], Scale(min=1, max=3), NONE) == []
    assert scaled([], UP_TO_3, NONE) == []
    stopped = ended(served(begun((), 1, 0), 1, 1), 1, 2, POLICY, cause="stopped")
    assert scaled([], UP_TO_3, Wish(1), attempts=stopped) == []
    assert scaled([], UP_TO_3, Wish(1, asked=True), attempts=stopped) == [StartReplica("a", "v1")]


def test_it_is_looked_at_again_when_fewer_may_be_enough():
    assert scaled([actual()], UP_TO_3, Wish(1, again=SECOND)) == [Wait("a", SECOND)]


def test_one_that_ends_makes_room_only_when_it_has_gone():
    two = [actual(1, State.DRAINING), actual(2)]
    assert scaled(two, Scale(min=2, max=2), NONE) == []
    assert scaled(two[1:], Scale(min=2, max=2), NONE) == [StartReplica("a", "v1", slot=1)]


def test_after_a_failure_one_is_tried_before_the_rest():
    failed = ended(begun((), 9, 0), 9, SECOND, POLICY, cause="exited", code=1)
    three, later = Scale(min=3, max=3), 10 * SECOND
    assert scaled([], three, NONE, later, attempts=failed) == [StartReplica("a", "v1")]
    trying = begun(failed, 10, later)
    assert scaled([actual(10, State.NEW, since=later)], three, NONE, later, attempts=trying) == [
        Wait("a", POLICY.start_limit)
    ]


def test_of_several_every_end_that_nobody_saw_is_written_down():
    attempts = begun(begun((), 1, 0), 2, 1)
    assert scaled([actual(2)], Scale(min=2, max=2), NONE, attempts=attempts) == [Lost("a", 1)]


def test_a_build_that_failed_is_made_again_for_who_waits():
    failed = built(deployment(), "failed", 0)
    assert plan([failed], [], DAWN, POLICY, scales={"a": UP_TO_3}, wishes={"a": NONE}) == []
    assert plan([failed], [], DAWN, POLICY, scales={"a": UP_TO_3}, wishes={"a": Wish(1, asked=True)}) == [
        StartBuild("a", "v1")
    ]

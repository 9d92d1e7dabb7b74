"""plan() under a simulated clock: a world of scripts that serve, hang and die, and an orchestrator that only plans."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies

from bema.core.instance import State
from bema.deploy.model.deployment import (
    Build,
    Deployment,
    Outward,
    Rollout,
    ScriptEntry,
    Version,
    VersionStatus,
    outward,
)
from bema.deploy.model.function import FunctionSettings
from bema.deploy.model.plan import Forget, GiveShare, Lost, Promote, StartReplica, StopReplica, Wait, plan
from bema.deploy.model.plan import StartBuild as BuildIt
from bema.deploy.model.replica import Replica
from bema.deploy.model.restarts import SECOND, Attempt, RestartPolicy, begun, ended, served

POLICY = RestartPolicy()
DAWN = 1_700_000_000 * SECOND


ONE = FunctionSettings(min_instances=1, max_instances=1)


def deployment(id: str = "a", build: str = "done", attempts: tuple[Attempt, ...] = ()) -> Rollout:
    version = Version(number=1, digest="d", entry=ScriptEntry())
    wanted = Deployment(id=id, name=id, owner="o", versions=(version,), created=0, updated=0, current="v1")
    wanted = msgspec.structs.replace(wanted, settings=ONE)
    return Rollout(wanted, {"v1": VersionStatus(build=Build(state=build), attempts=attempts)})


def built(rollout: Rollout, state: str, at: int) -> Rollout:
    return rollout.after(rollout.status.built(Build(state=state), at))


def actual(
    instance: int = 1, state: State = State.SERVING, version: str = "v1", since: int = 0, id: str = "a"
) -> Replica:
    return Replica(instance=instance, deployment=id, version=version, state=state, since=since, terms=ONE.terms)


def test_what_is_not_built_is_built_and_what_cannot_be_is_left():
    assert plan([deployment(build="pending")], [], 0) == [BuildIt("a", "v1")]
    assert plan([deployment(build="failed")], [], 0) == []


def test_a_failed_build_is_tried_again_when_somebody_asks_and_it_is_due():
    failed = built(deployment(build="pending"), "failed", DAWN)
    due = failed.status.build.again
    assert DAWN < due <= DAWN + 60 * SECOND
    assert plan([failed], [], due) == []
    assert plan([failed], [], due - 1, woken=frozenset("a")) == []
    assert plan([failed], [], due, woken=frozenset("a")) == [BuildIt("a", "v1")]
    assert plan([failed.after(failed.status.afresh())], [], DAWN, woken=frozenset("a")) == [BuildIt("a", "v1")]


def test_a_build_that_fails_again_and_again_is_tried_less_often():
    failing, at, waits = deployment(build="pending"), DAWN, []
    for _ in range(10):
        failing = built(failing, "failed", at)
        waits.append(failing.status.build.again - at)
        at = failing.status.build.again
    assert waits[:3] == [60 * SECOND, 120 * SECOND, 240 * SECOND]
    assert waits[-1] == 3600 * SECOND
    assert built(failing, "done", at).status.build.failures == 0


def test_what_is_built_and_not_there_is_started():
    assert plan([deployment()], [], 0) == [StartReplica("a", "v1")]


@pytest.mark.parametrize("state", [State.NEW, State.STARTING, State.SERVING, State.DRAINING])
def test_nothing_is_started_beside_an_instance(state: State):
    actions = plan([deployment()], [actual(state=state)], 0)
    assert not [a for a in actions if isinstance(a, StartReplica)]


def test_an_instance_that_never_listens_is_stopped_at_the_limit():
    starting = actual(state=State.STARTING, since=0)
    assert plan([deployment()], [starting], POLICY.start_limit - 5) == [Wait("a", 5)]
    assert plan([deployment()], [starting], POLICY.start_limit) == [StopReplica(1, "start_timeout")]


def test_a_double_is_stopped_and_the_serving_one_kept():
    two = [actual(1, State.STARTING, since=0), actual(2, State.SERVING, since=5)]
    assert plan([deployment()], two, 0) == [StopReplica(1, "replaced")]


def versions(count: int) -> Rollout:
    """A deployment with so many versions, each of which has served."""
    rollout = deployment(attempts=served(begun((), 1, 0), 1, 1))
    for number in range(2, count + 1):
        rollout = rollout.replaced(Version(number=0, digest=f"d{number}", entry=ScriptEntry()), at=number)
        rollout = rollout.after(
            VersionStatus(build=Build(state="done"), attempts=served(begun((), number, 0), number, 1))
        )
        rollout = Rollout(rollout.deployment.promoted(at=number), rollout.statuses)
    return rollout


def test_ten_versions_are_kept_and_those_with_unfinished_calls_however_old():
    labels = [version.label for version in versions(14).deployment.versions]
    assert labels == [f"v{number}" for number in range(4, 15)]
    newest = Version(number=0, digest="new", entry=ScriptEntry())
    assert versions(14).replaced(newest, at=20).deployment.versions[0].label == "v5"
    assert versions(14).replaced(newest, at=20, unfinished={"v4"}).deployment.versions[0].label == "v4"


def test_a_version_with_unfinished_calls_runs_beside_the_newest():
    rollout = versions(3)
    newest = actual(1, version="v3")
    assert plan([rollout], [newest], DAWN) == []
    unfinished = {"a": frozenset({"v1"})}
    assert plan([rollout], [newest], DAWN, unfinished=unfinished) == [StartReplica("a", "v1")]
    both = [newest, actual(2, version="v1")]
    assert plan([rollout], both, DAWN, unfinished=unfinished) == [GiveShare(2, 0, ONE.terms)], "it is sent no requests"
    both[1] = both[1].routed(0, ONE.terms, DAWN)
    assert plan([rollout], both, DAWN, unfinished=unfinished) == []
    assert plan([rollout], both, DAWN + SECOND) == [StopReplica(2, "replaced")], "its calls have ended"


def test_what_was_deleted_is_stopped_then_forgotten():
    assert plan([], [actual()], 0, leaving=frozenset({"a"})) == [StopReplica(1, "deleted")]
    assert plan([], [actual(state=State.DRAINING)], 0, leaving=frozenset({"a"})) == []
    assert plan([], [], 0, leaving=frozenset({"a"})) == [Forget("a")]


def test_an_instance_of_nothing_is_stopped():
    assert plan([], [actual()], 0) == [StopReplica(1, "deleted")]


def test_an_end_that_nobody_saw_is_written_down_before_the_next_start():
    assert plan([deployment(attempts=begun((), 7, 0))], [], 0) == [Lost("a", 7)]


def test_a_failed_start_waits():
    failed = ended(begun((), 1, 0), 1, SECOND, POLICY, cause="exited", code=1)
    assert plan([deployment(attempts=failed)], [], SECOND) == [Wait("a", SECOND)]
    assert plan([deployment(attempts=failed)], [], 2 * SECOND) == [StartReplica("a", "v1")]


def test_what_was_stopped_is_started_when_somebody_asks():
    stopped = ended(served(begun((), 1, 0), 1, 1), 1, 2, POLICY, cause="stopped")
    assert plan([deployment(attempts=stopped)], [], 9) == []
    assert plan([deployment(attempts=stopped)], [], 9, woken=frozenset({"a"})) == [StartReplica("a", "v1")]


class World:
    """Instances that live as their scripts are, a launcher that tells late or never, and what applying a plan does."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = DAWN
        self.desired: dict[str, Rollout] = {}
        self.leaving: set[str] = set()
        self.running: dict[int, Replica] = {}
        self.dies: dict[int, int] = {}
        self.listens: dict[int, int] = {}
        self.scripts: dict[str, str] = {}
        self.starts: list[tuple[int, str]] = []
        self.lost: list[
            tuple[int, str]
        ] = []  # starts whose end nobody saw: no failure of the script, and not held against it
        self.instances = 0

    def create(self, id: str, script: str) -> None:
        fresh = deployment(id, "pending")
        self.desired[id] = Rollout(msgspec.structs.replace(fresh.deployment, current=""), fresh.statuses)
        self.scripts[id] = script

    def delete(self, id: str) -> None:
        if self.desired.pop(id, None):
            self.leaving.add(id)

    def turn(self) -> None:
        """Look, plan, apply, until there is nothing to do now."""
        for _ in range(50):
            actions = plan(
                self.desired.values(), self.running.values(), self.now, POLICY, leaving=frozenset(self.leaving)
            )
            todo = [a for a in actions if not isinstance(a, Wait)]
            if not todo:
                return
            for action in todo:
                self.apply(action)
        raise AssertionError(f"never settles: {todo}")

    def apply(self, action: object) -> None:
        match action:
            case BuildIt(id, _):
                state = "failed" if self.scripts[id] == "unbuildable" else "done"
                self.desired[id] = built(self.desired[id], state, self.now)
            case StartReplica(id, _):
                self.start(id)
            case Promote(id, _):
                now = self.desired[id]
                self.desired[id] = Rollout(now.deployment.promoted(self.now), now.statuses)
            case StopReplica(instance):
                self.end(instance, cause="stopped", seen=True)
            case Lost(id, instance):
                self.history(id, ended(self.desired[id].status.attempts, instance, self.now, POLICY, cause="lost"))
            case Forget(id):
                assert not self.of(id)
                self.leaving.discard(id)

    def start(self, id: str) -> None:
        assert not self.of(id), "a second instance"
        recent = [at for at, other in self.starts if other == id and at > self.now - POLICY.window]
        lost = [at for at, other in self.lost if other == id and at > self.now - POLICY.window]
        assert len(recent) - len(lost) < POLICY.starts, "more than five starts in ten seconds"
        self.instances += 1
        self.starts.append((self.now, id))
        self.history(id, begun(self.desired[id].status.attempts, self.instances, self.now))
        self.running[self.instances] = actual(self.instances, State.STARTING, since=self.now, id=id)
        match self.scripts[id]:
            case "serves":
                self.listens[self.instances] = self.now + self.random.randrange(SECOND)
            case "exits":
                self.dies[self.instances] = self.now + self.random.randrange(SECOND)
            case "crashes":
                self.listens[self.instances] = self.now + self.random.randrange(SECOND)
                self.dies[self.instances] = self.listens[self.instances] + self.random.randrange(3 * SECOND)

    def of(self, id: str) -> list[Replica]:
        return [i for i in self.running.values() if i.deployment == id]

    def history(self, id: str, attempts: tuple[Attempt, ...]) -> None:
        self.desired[id] = self.desired[id].after(self.desired[id].status.tried(attempts, self.now))

    def end(self, instance: int, cause: str, seen: bool) -> None:
        gone = self.running.pop(instance)
        self.dies.pop(instance, None)
        self.listens.pop(instance, None)
        if not seen:
            self.lost.append((gone.since, gone.deployment))
        if seen and gone.deployment in self.desired:
            attempts = self.desired[gone.deployment].status.attempts
            self.history(gone.deployment, ended(attempts, instance, self.now, POLICY, cause=cause))

    def pass_time(self, step: int) -> None:
        self.now += step
        for instance in [i for i, at in self.listens.items() if at <= self.now]:
            del self.listens[instance]
            one = self.running[instance]
            self.running[instance] = msgspec.structs.replace(one, state=State.SERVING)
            if one.deployment in self.desired:
                self.history(one.deployment, served(self.desired[one.deployment].status.attempts, instance, self.now))
        for instance in [i for i, at in self.dies.items() if at <= self.now]:
            self.end(instance, "exited", seen=self.random.random() < 0.9)

    def state(self, id: str) -> Outward:
        mine = self.of(id)
        return outward(self.desired[id].status, mine[0] if mine else None, POLICY)


SCRIPTS = ("serves", "exits", "crashes", "hangs", "unbuildable")
STEPS = strategies.one_of(
    strategies.tuples(strategies.just("create"), strategies.sampled_from("abcdef"), strategies.sampled_from(SCRIPTS)),
    strategies.tuples(strategies.just("delete"), strategies.sampled_from("abcdef")),
    strategies.tuples(strategies.just("kill"), strategies.integers(0, 2), strategies.booleans()),
    strategies.tuples(strategies.just("pass"), strategies.integers(1, 20 * SECOND)),
)


@settings(max_examples=150, deadline=None)
@given(strategies.lists(STEPS, max_size=40), strategies.integers(0, 2**16))
def test_never_two_instances_never_hot_always_converges(steps: list[tuple[Any, ...]], seed: int):
    world = World(seed)
    for verb, *more in steps:
        match verb:
            case "create" if more[0] not in world.scripts:  # ids are never reused
                world.create(*more)
            case "delete":
                world.delete(more[0])
            case "kill" if len(world.running) > more[0]:
                world.end(list(world.running)[more[0]], "exited", seen=more[1])
            case "pass":
                world.pass_time(more[0])
        world.turn()
    converge(world)


def converge(world: World) -> None:
    """With nobody interfering, every deployment comes to the state its script deserves, and stays."""
    for _ in range(700):
        world.pass_time(SECOND)
        world.turn()
    assert not world.leaving
    assert {i.deployment for i in world.running.values()} <= set(world.desired)
    for id, script in world.scripts.items():
        if id in world.desired and script != "crashes":
            expected = {
                "serves": "ready",
                "exits": "start_failed",
                "hangs": "start_failed",
                "unbuildable": "build_failed",
            }
            assert world.state(id) == expected[script]


def test_a_crash_loop_beside_a_healthy_one(monkeypatch: pytest.MonkeyPatch):
    world = World(1)
    world.create("a", "crashes")
    world.create("b", "serves")
    monkeypatch.setattr(world.random, "randrange", lambda most: most // 10)
    for _ in range(1000):
        world.pass_time(SECOND // 10)
        world.turn()
    assert world.state("b") is Outward.READY
    assert world.state("a") in (Outward.CRASH_LOOP, Outward.READY)
    mine = [(at - DAWN) / SECOND for at, id in world.starts if id == "a"]
    assert len([at for at in mine if at < 10]) == 5
    assert len(mine) <= 8

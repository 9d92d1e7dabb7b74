"""The replicas that are known: what is heard while a launcher is asked is newer than its answer."""

from __future__ import annotations

from typing import Any

from bema.core.instance import State
from bema.deploy.model.replica import Replica
from bema.deploy.orchestrator.replicas import Replicas


def replica(instance: int, state: State = State.STARTING, deployment: str = "a", **more: Any) -> Replica:
    return Replica(instance=instance, deployment=deployment, version="v1", state=state, since=instance, **more)


def known(*found: Replica) -> Replicas:
    replicas = Replicas()
    for each in found:
        replicas.put(each)
    return replicas


def test_each_deployment_has_its_own():
    replicas = known(replica(1, State.NEW), replica(2), replica(3, State.SERVING), replica(4, deployment="b"))
    assert [each.instance for each in replicas.of("a")] == [1, 2, 3]
    assert len(replicas) == 3
    for instance in (1, 2, 3, 3):
        replicas.drop(instance)
    assert replicas.deployments() == {"b"}


def test_an_answer_does_not_undo_what_was_heard_before_it():
    replicas = known(replica(1, State.NEW), replica(2, State.NEW), replica(3, State.NEW))
    replicas.change(1, lambda r: r.serving({"phases": {"import": 3}}, ready=False))
    replicas.drop(2)
    for instance in (1, 2, 3):
        replicas.started(replica(instance, pid=instance))
    first, third = replicas.of("a")
    assert (first.state, first.pid, first.ready, first.phases) == (State.SERVING, 1, False, {"import": 3})
    assert (third.state, third.pid) == (State.STARTING, 3)
    assert 2 not in replicas


def test_whoever_is_not_in_the_picture_is_gone_but_for_those_that_came_meanwhile():
    replicas = known(replica(1), replica(2, State.NEW))
    asked_about = replicas.instances()
    replicas.put(replica(3))
    replicas.polled([replica(4, State.SERVING)], asked_about)
    assert [each.instance for each in replicas.of("a")] == [2, 3, 4]


def test_a_picture_that_is_older_than_what_was_heard_changes_nothing():
    replicas = known(replica(1, State.SERVING))
    replicas.polled([replica(1)], replicas.instances())
    assert [each.state for each in replicas.of("a")] == [State.SERVING]

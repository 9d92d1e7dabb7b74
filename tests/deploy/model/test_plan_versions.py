"""plan() with several versions: a candidate comes up beside what serves, and takes its requests or changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bema.core.instance import State
from bema.deploy.model.deployment import Build, Deployment, Rollout, ScriptEntry, Version, VersionStatus
from bema.deploy.model.function import FunctionSettings
from bema.deploy.model.plan import (
    UNPROVEN,
    GiveShare,
    GiveUp,
    Promote,
    StartBuild,
    StartReplica,
    StopReplica,
    Wait,
    plan,
)
from bema.deploy.model.replica import Replica
from bema.deploy.model.restarts import SECOND, RestartPolicy, begun, ended, served
from tests.deploy.model.test_plan import DAWN, actual

POLICY = RestartPolicy()
PLAIN = FunctionSettings()
GOOD = VersionStatus(build=Build(state="done"), attempts=served(begun((), 1, DAWN), 1, DAWN), good=DAWN)
BUILT = VersionStatus(build=Build(state="done"))


def rollout(second: VersionStatus = BUILT, settings: FunctionSettings = PLAIN, **more: Any) -> Rollout:
    """v1 serves, and v2 is the candidate."""
    one, two = (Version(number=n, digest=f"d{n}", entry=ScriptEntry(), settings=settings) for n in (1, 2))
    given: dict[str, Any] = {"current": "v1", "candidate": "v2"} | more
    deployment = Deployment(id="a", name="a", owner="o", versions=(one, two), created=0, updated=0, **given)
    return Rollout(deployment, {"v1": GOOD, "v2": second})


def old(**more: Any) -> Replica:
    return msgspec.structs.replace(actual(1, version="v1"), **more)


def new(**more: Any) -> Replica:
    given: dict[str, Any] = {"share": 0, "since": DAWN} | more
    return msgspec.structs.replace(actual(2, version="v2"), **given)


def trying(attempts: VersionStatus = BUILT) -> VersionStatus:
    return attempts.tried(begun(attempts.attempts, 2, DAWN), DAWN)


FAILED = BUILT.tried(ended(begun((), 2, DAWN), 2, DAWN, POLICY, cause="exited", code=1), DAWN)


def test_a_candidate_is_built_and_started_beside_what_serves():
    assert plan([rollout(VersionStatus())], [old()], DAWN) == [StartBuild("a", "v2")]
    assert plan([rollout()], [old()], DAWN) == [StartReplica("a", "v2")]
    starting = new(state=State.STARTING)
    assert plan([rollout(trying())], [old(), starting], DAWN) == [Wait("a", POLICY.start_limit)]


def test_it_has_its_share_first_and_the_old_one_ends_a_while_after_it_has_none():
    assert plan([rollout(GOOD)], [old(), new()], DAWN) == [Promote("a", "v2")]
    then = rollout(GOOD, current="v2", candidate="")
    assert plan([then], [old(), new()], DAWN) == [GiveShare(2, 100, PLAIN.terms), GiveShare(1, 0, PLAIN.terms)]
    assert plan([then], [old(share=0, unshared=DAWN), new(share=100)], DAWN) == [Wait("a", SECOND)]
    last = plan([then], [old(share=0, unshared=DAWN), new(share=100)], DAWN + SECOND)
    assert last == [StopReplica(1, "replaced")]


@pytest.mark.parametrize("there", [[], [State.STARTING], [State.DRAINING]])
def test_what_serves_keeps_its_share_until_something_serves_in_its_place(there: list[State]):
    then = rollout(GOOD, current="v2", candidate="")
    actions = plan([then], [old(), *(new(state=state, share=100) for state in there)], DAWN)
    assert not [each for each in actions if isinstance(each, GiveShare | StopReplica)]


@pytest.mark.parametrize("status", [FAILED, VersionStatus(build=Build(state="failed", again=DAWN))])
def test_a_candidate_that_failed_is_given_up_while_another_serves_and_tried_again_where_none_ever_did(
    status: VersionStatus,
):
    assert GiveUp("a", "v2") in plan([rollout(status)], [old()], DAWN)
    first = Rollout(msgspec.structs.replace(rollout().deployment, current=""), {"v1": BUILT, "v2": status})
    assert not [each for each in plan([first], [], DAWN) if isinstance(each, GiveUp)]
    over = rollout(status, candidate="")
    assert plan([over], [old()], DAWN) == []


def test_one_that_serves_and_is_not_found_fit_in_time_is_stopped():
    limit = POLICY.start_limit
    assert plan([rollout(trying())], [old(), new()], DAWN) == [Wait("a", limit)]
    assert plan([rollout(trying())], [old(), new()], DAWN + limit) == [StopReplica(2, UNPROVEN)]


def test_of_what_keeps_data_the_old_one_ends_first_and_comes_back_when_the_new_one_failed():
    keep = FunctionSettings(keep=True)
    assert plan([rollout(settings=keep)], [old()], DAWN) == [StopReplica(1, "replaced")]
    assert plan([rollout(settings=keep)], [old(state=State.DRAINING)], DAWN) == []
    assert plan([rollout(settings=keep)], [], DAWN) == [StartReplica("a", "v2")]
    assert GiveUp("a", "v2") in plan([rollout(FAILED, keep)], [], DAWN)
    over, asked = rollout(FAILED, keep, candidate=""), frozenset("a")
    over = Rollout(over.deployment, over.statuses | {"v1": stopped()})
    assert plan([over], [], DAWN, woken=asked) == [StartReplica("a", "v1")]


def stopped() -> VersionStatus:
    return GOOD.tried(ended(GOOD.attempts, 1, DAWN, POLICY, cause="stopped"), DAWN)


def test_shares_keep_every_version_that_has_one():
    split = rollout(GOOD, candidate="", traffic={"v1": 90, "v2": 10})
    assert StartReplica("a", "v2") in plan([split], [old()], DAWN)
    assert plan([split], [old(), new()], DAWN) == [GiveShare(2, 10, PLAIN.terms), GiveShare(1, 90, PLAIN.terms)]
    assert plan([split], [old(share=90), new(share=10)], DAWN) == []


def test_a_slot_is_the_lowest_that_no_replica_has_also_of_those_that_end():
    wide = FunctionSettings(min_instances=3, max_instances=4)
    deployment = msgspec.structs.replace(rollout(candidate="").deployment, settings=wide)
    there = [old(state=State.DRAINING), msgspec.structs.replace(actual(3, version="v1"), slot=2)]
    asked = plan([Rollout(deployment, {"v1": GOOD, "v2": BUILT})], there, DAWN)
    assert asked == [StartReplica("a", "v1", 1), StartReplica("a", "v1", 3)]


def test_a_candidate_begins_with_the_share_that_was_asked_for():
    deployment = rollout(candidate_share=10).deployment.promoted(DAWN)
    assert (deployment.current, deployment.candidate, deployment.shares) == ("v1", "", {"v1": 90, "v2": 10})
    third = Version(number=3, digest="d3", entry=ScriptEntry())
    more = msgspec.structs.replace(deployment, versions=(*deployment.versions, third))
    assert more.with_candidate("v3", DAWN, 50).promoted(DAWN).shares == {"v1": 45, "v2": 5, "v3": 50}
    assert more.with_candidate("v3", DAWN).promoted(DAWN).shares == {"v3": 100}

"""Every outward state is one function of what is stored and which instance there is."""

from typing import Any

import msgspec
import pytest

from bema.core.errors import Failed
from bema.core.instance import State
from bema.deploy.model.deployment import (
    Build,
    Deployment,
    Fault,
    Outward,
    Rollout,
    ScriptEntry,
    Version,
    VersionStatus,
    describe,
    fault_of,
    outward,
)
from bema.deploy.model.function import FunctionSettings, Scale
from bema.deploy.model.replica import Replica
from bema.deploy.model.restarts import SECOND, Attempt, RestartPolicy, begun, ended, served

POLICY = RestartPolicy()


DONE = Build(state="done")


def deployment(**more: Any) -> Deployment:
    version = Version(number=3, digest="d", entry=ScriptEntry("app", "app"))
    return Deployment(id="id", name="hello", owner="ada", versions=(version,), created=1, updated=2, **more)


def rollout(build: Build = DONE, attempts: tuple[Attempt, ...] = ()) -> Rollout:
    return Rollout(deployment(), {"v3": VersionStatus(build=build, attempts=attempts)})


def seen(state: State, *, ready: bool = True, stalled: bool = False) -> Replica:
    return Replica(
        instance=1, deployment="id", version="v3", pid=77, state=state, since=5, ready=ready, stalled=stalled
    )


RUNNING = begun((), 1, 0)
STOPPED = ended(served(RUNNING, 1, 1), 1, 2, POLICY, cause="stopped")
FAILED = ended(RUNNING, 1, SECOND, POLICY, cause="exited", code=3, log=("Traceback", "KeyError: 'X'"))
KILLED = ended(served(RUNNING, 1, 1), 1, SECOND, POLICY, cause="exited", signal=9)
LOST = ended(RUNNING, 1, SECOND, POLICY, cause="lost")


def looping() -> tuple[Attempt, ...]:
    attempts: tuple[Attempt, ...] = ()
    for n in range(1, 6):
        attempts = ended(served(begun(attempts, n, n), n, n), n, n, POLICY, cause="exited", code=1, log=("boom",))
    return attempts


@pytest.mark.parametrize(
    ("build", "attempts", "instance", "state"),
    [
        (Build(), (), None, Outward.BUILDING),
        (Build(state="failed"), (), None, Outward.BUILD_FAILED),
        (DONE, (), None, Outward.STARTING),
        (DONE, RUNNING, State.STARTING, Outward.STARTING),
        (DONE, RUNNING, State.SERVING, Outward.READY),
        (DONE, KILLED, None, Outward.STARTING),
        (DONE, LOST, None, Outward.STARTING),
        (DONE, FAILED, None, Outward.START_FAILED),
        (DONE, begun(FAILED, 2, 9), State.STARTING, Outward.START_FAILED),
        (DONE, looping(), None, Outward.CRASH_LOOP),
        (DONE, begun(looping(), 9, 9), State.SERVING, Outward.READY),
        (DONE, STOPPED, None, Outward.IDLE),
        (DONE, begun(STOPPED, 2, 9), State.STARTING, Outward.STARTING),
        (DONE, begun(STOPPED, 2, 9), None, Outward.STARTING),
    ],
)
def test_outward(build: Build, attempts: tuple[Attempt, ...], instance: State | None, state: Outward):
    assert outward(rollout(build, attempts).status, seen(instance) if instance else None, POLICY) is state


@pytest.mark.parametrize("attempts", [RUNNING, begun(looping(), 9, 9)])
def test_one_that_serves_and_is_not_ready_is_starting_whatever_came_before(attempts: tuple[Attempt, ...]):
    assert outward(rollout(attempts=attempts).status, seen(State.SERVING, ready=False), POLICY) is Outward.STARTING


def test_stalled_is_a_mark_and_no_state():
    info = describe(rollout(attempts=served(RUNNING, 1, 1)), [seen(State.SERVING, stalled=True)], POLICY)
    assert info.instance is not None
    assert (info.state, info.instance.stalled, info.instance.ready) == ("ready", True, True)


def test_a_failed_start_says_how_it_ended_and_its_last_lines():
    info = describe(rollout(attempts=FAILED), [], POLICY)
    assert info.error is not None
    assert info.error.code == "start_failed"
    assert info.error.message == "hello never listened: it ended with code 3"
    assert info.error.log == ("Traceback", "KeyError: 'X'")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"cause": "exited", "signal": 11}, "hello never listened: it was ended by signal 11"),
        ({"cause": "exited", "message": "it was ended by SIGSEGV"}, "hello never listened: it was ended by SIGSEGV"),
        ({"cause": "start_timeout"}, "hello: no listener after 30 s"),
        (
            {"cause": "start_timeout", "message": "it did not listen within 30 s: it stood in main.py:3 time.sleep"},
            "hello: no listener after 30 s: it stood in main.py:3 time.sleep",
        ),
        ({"cause": "spawn", "message": "no such file"}, "hello cannot be started: no such file"),
    ],
)
def test_each_end_has_its_sentence(how: dict[str, object], says: str):
    info = describe(rollout(attempts=ended(RUNNING, 1, 30 * SECOND, POLICY, **how)), [], POLICY)
    assert info.error is not None
    assert info.error.message == says


def test_a_failed_build_keeps_the_resolvers_text():
    fault = fault_of(Failed("no such package", code="build_failed", detail="whole text"))
    info = describe(rollout(Build(state="failed", fault=fault)), [], POLICY)
    assert info.error == Fault("build_failed", "no such package", fault.fix, detail="whole text")


def test_a_ready_deployment_as_the_api_shows_it():
    info = describe(rollout(attempts=served(RUNNING, 1, 1)), [seen(State.SERVING)], POLICY)
    assert msgspec.to_builtins(info) == {
        "id": "id",
        "name": "hello",
        "owner": "ada",
        "version": "v3",
        "state": "ready",
        "kind": "app",
        "created": 1,
        "updated": 2,
        "error": None,
        "instance": {
            "id": "0000000000001",
            "pid": 77,
            "state": "serving",
            "since": 5,
            "ready": True,
            "stalled": False,
            "stands": "",
        },
        "restarts": 0,
        "phases": {},
        "latest": None,
        "traffic": {},
        "settings": {},
        "progress": "",
    }


def test_restarts_are_counted_after_the_first_start():
    one = VersionStatus().tried(RUNNING, 1)
    assert one.restarts == 0
    two = one.tried(begun(ended(RUNNING, 1, 2, POLICY), 2, 3), 4)
    assert two.restarts == 1
    assert two.tried(served(two.attempts, 2, 5), 6).restarts == 1
    assert rollout().after(two).restarts == 1
    assert rollout().after(two).updated == 4


def test_what_is_stored_comes_back_equal():
    whole = deployment(traffic={"v3": 100}, current="v3")
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Deployment) == whole
    status = VersionStatus(build=DONE, attempts=looping(), restarts=4)
    assert msgspec.json.decode(msgspec.json.encode(status), type=VersionStatus) == status


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"traffic": {"v4": 100}}, "there is no version v4"),
        ({"current": "v2"}, "there is no version v2"),
        ({"traffic": {"v3": 90}}, "100 together"),
    ],
)
def test_traffic_names_versions_that_are_there(wrong: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        deployment(**wrong)


def test_a_service_has_an_instance_where_nothing_is_said_and_others_may_have_none():
    def scale(kind: str, **said: int) -> Scale:
        version = Version(number=1, digest="d", entry=ScriptEntry(kind, "x"))
        settings = FunctionSettings(**said)  # type: ignore[arg-type]
        given: dict[str, Any] = {"created": 0, "updated": 0, "settings": settings}
        return Deployment(id="a", name="a", owner="o", versions=(version,), **given).scale

    assert [scale(kind).min for kind in ("app", "mcp", "main", "service")] == [0, 0, 0, 1]
    assert scale("service", min_instances=0).min == 0
    assert scale("app") == Scale(min=0, max=10, concurrency=200, idle_after=600 * SECOND)

"""What an instance says of itself while it serves: the last of it is kept, and a flood of it costs nothing."""

import os
import signal
import time

import pytest

from bema.deploy.keeper import status_relay
from bema.deploy.keeper.loop import Loop
from bema.deploy.keeper.status_relay import LONGEST, StatusRelay

from .conftest import ask, until


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def told():
    return []


def test_the_first_goes_on_at_once_and_of_the_rest_the_last(loop, told):
    status = StatusRelay(loop, lambda: told.append(status.last))
    for number in range(1000):
        assert status.take({"op": "status", "data": {"number": number}}) == ""
    assert told == [{"data": {"number": 0}}]
    loop.turn(1.0)
    assert told[1:] == [{"data": {"number": 999}}]
    loop.turn(1.0)
    assert len(told) == 2
    status.take({"op": "status", "ready": False})
    assert told[2:] == [{"ready": False}]


def test_one_that_is_too_large_is_not_kept(loop, told):
    status = StatusRelay(loop, lambda: told.append(status.last))
    status.take({"op": "status", "ready": False})
    assert f"of which there may be {LONGEST}" in status.take({"op": "status", "data": {"x": "y" * LONGEST}})
    assert status.last == {"ready": False}


def test_nobody_is_told_of_one_that_is_gone(loop, told):
    status = StatusRelay(loop, lambda: told.append(status.last))
    for ready in (True, False):
        status.take({"op": "status", "ready": ready})
    status.close()
    loop.turn(0.2)
    assert told == [{"ready": True}]


def test_it_is_told_with_the_announcement_then_as_it_comes_and_again_to_the_next_orchestrator(platform):
    platform.ready()
    platform.spawn("moody")
    assert platform.event("announced")["status"] == {"ready": False}
    ask(str(platform.folder / "d1.sock"))  # has it say a thousand
    told = [platform.event("status")["status"]["data"]["number"]]
    while told[-1] != 999:
        told.append(platform.event("status")["status"]["data"]["number"])
    assert told == sorted(told)
    assert len(told) < 20

    old = platform.pid_of("orchestrator")
    os.kill(old, signal.SIGKILL)
    until(lambda: platform.pid_of("orchestrator") not in (None, old))
    platform.connect()
    [listed] = platform.request("list")["ok"]["instances"]
    assert listed["status"] == {"data": {"number": 999}}


def test_an_instance_that_ends_before_its_last_status_was_passed_on_leaves_nothing_behind(platform):
    platform.ready()
    platform.serving("parting")
    ask(str(platform.folder / "d1.sock"))
    assert platform.event("status")["status"] == {"ready": True}
    assert platform.event("exited")["instance"] == platform.last
    time.sleep(2 * status_relay._QUIET)  # nothing tells that nothing comes
    platform.signal()
    assert platform.ended() == (0, "bema: draining; once more to stop at once\n")

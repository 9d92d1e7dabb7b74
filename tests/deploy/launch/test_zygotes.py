"""Which starts share a zygote, and how a start is shown that one has forked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bema.deploy.launch.launcher import Announced, Exited
from bema.deploy.launch.sandbox import Home
from bema.deploy.launch.workload import WorkloadEnvironment
from bema.deploy.launch.zygotes import zygote_for
from bema.deploy.model.isolation import STANDARD, Isolation
from tests.deploy.keeper.conftest import platform
from tests.deploy.launch.test_process import APP, PROGRAM, get, own_state, told
from tests.deploy.platform import workload

__all__ = ["own_state", "platform"]


def key(tmp_path, **of):
    return zygote_for(workload(**of), Home(tmp_path), None, 1)["key"]


def test_deployments_of_one_owner_and_environment_share_a_zygote(tmp_path):
    assert key(tmp_path, name="one", owner="ada") == key(tmp_path, name="two", owner="ada", env={"A": "b"})


@pytest.mark.parametrize(
    "other",
    [
        {"owner": "bob"},
        {"environment": WorkloadEnvironment("other", "/layer")},
        {"environment": WorkloadEnvironment("python", "/other")},
    ],
)
def test_others_do_not(tmp_path, other):
    assert key(tmp_path, owner="ada") != key(tmp_path, **{"owner": "ada", **other})


def test_a_sandbox_has_its_own_and_no_count_of_what_each_instance_may_have(tmp_path):
    home, limits = Home(tmp_path), {"memory": 1, "files": 2, "processes": 3}
    sandbox = {"kind": "standard", "write": [str(tmp_path)], "limits": limits}
    one = zygote_for(workload(), home, sandbox, 1)
    assert one["sandbox"] == {**sandbox, "limits": {"memory": 1}}
    others = [zygote_for(workload(), home, other, 1)["key"] for other in (None, {**sandbox, "write": []})]
    assert one["key"] not in others


def test_strict_isolation_has_none(tmp_path):
    assert zygote_for(workload(), Home(tmp_path), {"kind": "strict"}, 1) == {"why": "its isolation is strict"}


def test_a_zygote_is_given_no_variable_of_a_deployment(tmp_path):
    assert "SECRET" not in zygote_for(workload(env={"SECRET": "s"}), Home(tmp_path), None, 1)["env"]


async def ready(stage):
    """Until the keeper has a zygote that can fork."""
    while not all(each["ready"] for each in (await stage.launcher._keeper.request("list"))["zygotes"]):
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("given", [(APP,), (PROGRAM.replace("WISH", "None"), "main", "")], ids=["app", "program"])
def test_the_second_start_is_forked_shown_so_and_ends_as_any_other(platform, given):
    async def story(stage):
        for kind in ("exec", "zygote"):
            running = await stage.start(stage.given(*given))
            event = await stage.event()
            assert isinstance(event, Announced)
            [record] = await stage.shown()
            assert record.data["start"]["kind"] == event.announce["start"]["kind"] == kind
            assert (record.pid, record.state) == (running.pid, "serving")
            if given == (APP,):
                assert ("fork" in record.data["phases"]) is (kind == "zygote")
                [address] = record.addresses["http"]
                assert str(running.deployment) in await asyncio.to_thread(get, address)
            await stage.launcher.stop(running.instance, 20.0, "test")
            end = await stage.event()
            assert isinstance(end, Exited)
            assert end.cause == "stopped"
            assert await stage.shown() == []
            await ready(stage)

    told(platform, story)


def test_a_zygote_is_in_the_sandbox_of_those_that_it_forks(platform):
    async def story(stage):
        for kind in ("exec", "zygote"):
            await stage.start(stage.given(APP, isolation=Isolation(kind=STANDARD)))
            assert (await stage.event()).announce["start"]["kind"] == kind
            await ready(stage)
        [zygote] = (await stage.launcher._keeper.request("list"))["zygotes"]
        assert "NoNewPrivs:\t1" in Path(f"/proc/{zygote['pid']}/status").read_text()

    told(platform, story)

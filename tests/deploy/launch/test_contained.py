"""Instances that a launcher starts in a sandbox: what is shown of it, what is refused, and what ends them."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from bema.core.errors import Refused
from bema.deploy.launch import disk_quota
from bema.deploy.launch.launcher import Announced
from bema.deploy.launch.workload import WorkloadLimits
from bema.deploy.model.isolation import Isolation
from bema.runner import sandbox
from tests.deploy.keeper.conftest import platform
from tests.deploy.launch.test_process import APP, PROGRAM, get, own_state, told

__all__ = ["own_state", "platform"]

STANDARD, STRICT = Isolation(kind="standard"), Isolation(kind="strict")
can_be_strict = pytest.mark.skipif(sandbox.level() != "full", reason="before Linux 6.12")

WRITES = (
    """
import os
for number in range(64):
    with open(os.path.join(os.environ["HOME"], str(number)), "wb") as file:
        file.write(bytes(65536))
"""
    + APP
)


@pytest.mark.parametrize(("code", "kind"), [(APP, "app"), (PROGRAM.replace("WISH", "None"), "main")])
def test_what_serves_is_shown_with_what_it_has_entered(platform, code, kind):
    async def story(stage):
        await stage.start(stage.given(code, kind, "app" if kind == "app" else "", isolation=STANDARD))
        assert isinstance(await stage.event(), Announced)
        [record] = await stage.shown()
        assert record.data["isolation"] == {
            "kind": "standard",
            "level": sandbox.level(),
            "missing": sandbox.missing(),
        }

    told(platform, story)


@can_be_strict
def test_a_strict_app_answers_on_the_listener_that_it_was_passed(platform):
    async def story(stage):
        await stage.start(stage.given(APP, isolation=Isolation(kind="strict", network=())))
        assert isinstance(await stage.event(), Announced)
        [record] = await stage.shown()
        assert (await asyncio.to_thread(get, record.addresses["http"][0])).endswith("/home")
        assert (record.data["isolation"]["kind"], record.data["isolation"]["network"]) == ("strict", [])

    told(platform, story)


def test_where_the_machine_has_less_than_is_asked_for_nothing_is_started(platform, monkeypatch):
    monkeypatch.setattr(sandbox, "level", lambda: "files")

    async def story(stage):
        with pytest.raises(Refused, match="isolation 'strict' is asked for: it needs the level 'full'") as refused:
            await stage.start(stage.given(APP, isolation=STRICT))
        assert refused.value.code == "isolation_missing"
        assert await stage.launcher.poll() == []
        assert list((platform.state / "run" / "d").glob("*.lock")) == []

    told(platform, story)


def test_an_instance_that_finds_less_than_its_launcher_did_ends_before_its_script_runs(platform, monkeypatch):
    monkeypatch.setattr(sandbox, "LEVELS", (*sandbox.LEVELS, "complete"))
    monkeypatch.setattr(sandbox, "level", lambda: "complete")

    async def story(stage):
        await stage.start(stage.given(APP, isolation=STANDARD))
        end = await stage.event()
        assert (end.cause, end.code) == ("exited", 1)
        assert "not started" in "".join(record["event"] for record in end.tail)

    told(platform, story)


def test_who_writes_more_than_its_quota_is_ended_with_the_reason(platform, monkeypatch):
    monkeypatch.setattr(disk_quota, "EVERY", 0.05)
    bounds = msgspec.structs.replace(WorkloadLimits().bounds, disk=1 << 20)

    async def story(stage):
        await stage.start(stage.given(WRITES, isolation=STANDARD, limits=WorkloadLimits(bounds=bounds)))
        end = await stage.event()
        if isinstance(end, Announced):
            end = await stage.event()
        assert end.cause == "disk_quota"
        assert "more than 1,048,576 bytes in HOME and TMPDIR (limits.instance_disk)" in end.message

    told(platform, story)

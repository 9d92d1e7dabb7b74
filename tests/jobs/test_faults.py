"""Kills, full disks and failing disks at single system calls: nothing that was acknowledged is lost, done twice or changed.

In short here; `dev.py soak durable` has hundreds of rounds.
"""

import os
import random
import re
import signal
from pathlib import Path

import pytest

from tests import disks
from tests.jobs.faulty import Machine, killed, unsynced
from tests.tools import tool

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tool("strace"), tmp_path)


def recovered(machine: Machine) -> None:
    last = machine.run()
    assert last.code == 0
    assert machine.check() == []


@pytest.mark.parametrize("seed", range(8))
def test_killed_at_a_write_or_a_sync_and_killed_again_while_it_recovers(machine, seed):
    chance = random.Random(seed)
    assert machine.run(killed(chance)).code == -signal.SIGKILL
    machine.run(killed(chance))  # which may have had less to write
    recovered(machine)


@pytest.mark.parametrize("when", ["4", "30", "5+5", "17+17", "40+1"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_write_that_fails_is_never_acknowledged(machine, error, when):
    machine.run(f"pwrite64:error={error}:when={when}", seconds=6)
    recovered(machine)


@pytest.mark.parametrize("when", [1, 5, 9, 14])
def test_after_a_sync_that_failed_the_owner_ends_and_acknowledges_nothing_more(machine, when):
    run = machine.run(f"fdatasync:error=EIO:when={when}")
    assert run.code != 0
    failed = next(index for index, line in enumerate(run.trace) if "(INJECTED)" in line)
    assert not [line for line in run.trace[failed:] if "acknowledged" in line or "ended" in line]
    recovered(machine)


def test_every_acknowledgement_comes_after_a_sync_of_what_was_written(machine):
    machine.calls = 1
    run = machine.run()
    assert run.code == 0
    assert [line[0] for line in run.said] == ["acknowledged", "given", "given", "given", "ended"]
    assert unsynced(run.trace) == []
    assert len(unsynced([line for line in run.trace if "sync(" not in line])) == 5, (
        "the look at it sees what is missing"
    )


@pytest.mark.parametrize("sync", [8, 10, 12])
def test_what_an_owner_wrote_and_had_not_synced_when_it_was_killed_is_synced_before_anybody_is_told(machine, sync):
    machine.calls = 1
    assert machine.run(f"fdatasync:signal=SIGKILL:when={sync}").code == -signal.SIGKILL
    run = machine.run()
    assert (run.code, "t.t.sqlite-wal" in run.left) == (0, True)
    assert unsynced(run.trace, run.left) == []


@pytest.mark.parametrize("pages", [9, 16, 40])
def test_a_write_that_the_disk_took_a_part_of_is_never_acknowledged(machine, tmp_path, pages):
    with disks.small_disk(tmp_path / "disk", 8) as disk:
        machine.folder = disk / "calls"
        machine.calls = 1
        assert machine.run().code == 0
        disks.fill(disk)
        os.truncate(disk / "ballast", (disk / "ballast").stat().st_size - pages * 4096)
        machine.calls = 12
        full = machine.run(seconds=6)
        assert full.code != 0, "it waits for room, or cannot even begin"
        assert any(taken_in_part(line) for line in full.trace)
        (disk / "ballast").unlink()
        assert {line[1] for line in full.said if line[0] == "acknowledged"} <= machine.kept()
        recovered(machine)


def taken_in_part(line: str) -> bool:
    call = re.search(r"pwrite64\(.*, (\d+), \d+\) = (\d+)$", line)
    return call is not None and int(call[2]) < int(call[1])

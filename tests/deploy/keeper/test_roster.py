"""Who comes after a dead keeper ends what it left, and nobody else."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from bema.deploy.keeper.processes import look, start_of
from bema.deploy.keeper.roster import Roster, clear, write_atomically

from .conftest import alive, until


@pytest.fixture
def roster(tmp_path):
    return Roster(tmp_path / "keeper.json")


@pytest.fixture
def sleeper():
    started = []

    def start(**env):
        process = subprocess.Popen(["sleep", "600"], start_new_session=True, env={"PATH": os.environ["PATH"], **env})
        started.append(process)
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_what_is_left_is_ended(roster, sleeper, tmp_path):
    process = sleeper()
    roster.add("one", process.pid, start_of(process.pid), "")
    assert clear(tmp_path / "keeper.json") == ["one"]
    assert not alive(process.pid)


def test_a_pid_that_means_another_process_now_is_left_alone(roster, sleeper, tmp_path):
    process = sleeper()
    roster.add("one", process.pid, start_of(process.pid) - 1, "")
    assert clear(tmp_path / "keeper.json") == []
    assert alive(process.pid)


def test_offspring_that_left_the_session_is_told_by_its_marker(roster, sleeper, tmp_path):
    leader, stray, other = sleeper(), sleeper(MARK="7"), sleeper(MARK="77")
    roster.add("one", leader.pid, start_of(leader.pid), "MARK=7")
    clear(tmp_path / "keeper.json")
    assert [alive(p.pid) for p in (leader, stray, other)] == [False, False, True]


@pytest.mark.parametrize("change", [{"boot": "another"}, {"children": "nonsense"}, {"keeper": {"pid": 1}}])
def test_a_roster_that_is_not_meant_ends_nobody(roster, sleeper, tmp_path, change):
    process = sleeper()
    roster.add("one", process.pid, start_of(process.pid), "")
    path = tmp_path / "keeper.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert clear(path, keeper=os.getpid()) == []
    assert alive(process.pid)


def test_no_roster_is_nothing_to_clear(tmp_path):
    assert clear(tmp_path / "keeper.json") == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\udc00")
    assert path.read_text() == "old"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_zombie_is_nobody(sleeper):
    process = sleeper()
    process.kill()
    until(lambda: look(process.pid) is None)

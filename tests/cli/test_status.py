import fcntl
import json

import pytest

from bema.cli.status import status_of
from bema.core.errors import Unavailable

UP = {"gateway": "http://127.0.0.1:8700", "api": "http://127.0.0.1:8701", "pid": 7, "started": 1}


@pytest.fixture
def state(tmp_path):
    (tmp_path / "up.json").write_text(json.dumps(UP))
    (tmp_path / "keeper.json").write_text(
        json.dumps({"children": [{"name": "gateway", "pid": 8, "start": 1, "group": 8, "marker": ""}]})
    )
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield tmp_path


def test_it_is_what_up_json_says_with_the_processes(state):
    assert status_of(state) == {**UP, "processes": [{"name": "gateway", "pid": 8}]}


def test_what_a_dead_keeper_left_behind_is_not_up(state):
    with (state / "lock").open("r") as mine:
        assert mine
        (state / "lock").unlink()
        (state / "lock").touch()
    with pytest.raises(Unavailable) as error:
        status_of(state)
    assert (error.value.code, error.value.problem.exit) == ("not_up", 3)


def test_where_nothing_ever_ran_nothing_is_up(tmp_path):
    with pytest.raises(Unavailable, match="nothing runs on"):
        status_of(tmp_path / "nowhere")

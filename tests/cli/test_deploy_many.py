"""`bema deploy` without a file: every function of bema.toml, in order, whatever becomes of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bema import cli
from bema.cli import api
from bema.deploy.launch.launcher import crashes
from tests.cli.served import Served, served

TABLE = """
[[function]]
file = "one.py"
env = { MODE = "test" }
timeout = 30

[[function]]
name = "second"
file = "two.py"
"""


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "bema.toml").write_text(TABLE)
    for name in ("one.py", "two.py"):
        (folder / name).write_text("app = 1\n")
    with served(tmp_path) as made:
        yield made


def test_all_are_deployed_in_order_each_with_its_url(up: Served, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["deploy"]) == 0
    said = capsys.readouterr()
    found = api.deployments()
    assert said.out.splitlines() == [each["url"] for each in found]
    assert [(each["name"], each["state"]) for each in found] == [("one", "ready"), ("second", "ready")]
    assert found[0]["settings"] == {"timeout": 30.0}
    assert up.platform.launcher.started[0].env == {"MODE": "test"}
    assert [line for line in said.err.splitlines() if " of 2)" in line] == ["one (1 of 2)", "second (2 of 2)"]


def test_again_it_deploys_what_changed(up: Served, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["deploy"]) == 0
    Path("two.py").write_text("app = 2\n")
    capsys.readouterr()
    assert cli.main(["deploy", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "one: would make no new version" in told
    assert "second: would make v2" in told
    assert cli.main(["deploy"]) == 0
    assert [each["version"] for each in api.deployments()] == ["v1", "v2"]


def test_one_that_fails_keeps_no_other_back(up: Served, capsys: pytest.CaptureFixture[str]):
    up.platform.launcher.outcomes["one"] = crashes(1, "KeyError: 'X'")
    assert cli.main(["deploy"]) == 4
    said = capsys.readouterr()
    assert [each["state"] for each in api.deployments()][1:] == ["ready"]
    assert "1 of 2 functions are deployed" in said.err
    assert "KeyError: 'X'" in said.err
    assert "error start_failed" in said.err


def test_a_table_that_cannot_be_read_deploys_nothing(up: Served, capsys: pytest.CaptureFixture[str]):
    with Path("bema.toml").open("a") as file:
        file.write('[[function]]\nfile = "three.py"\n')
    assert cli.main(["deploy"]) == 1
    assert "function 3 (three): three.py" in capsys.readouterr().err
    assert api.deployments() == []


def test_options_of_one_function_need_its_file(up: Served, capsys: pytest.CaptureFixture[str]):
    for options in (["--name", "x"], ["--env", "A=1"], ["--timeout", "3"], ["--secret", "A"], ["--traffic", "10"]):
        assert cli.main(["deploy", *options]) == 1
        assert "bema.toml" in capsys.readouterr().err
    assert api.deployments() == []


def test_a_folder_without_a_table_says_how_it_is_written(
    up: Served, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert cli.main(["deploy"]) == 1
    assert "[[function]]" in capsys.readouterr().err

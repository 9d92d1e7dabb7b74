"""`bema versions`, `rollback`, `traffic`, and what a dry run of `bema deploy` tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bema import cli
from bema.cli import api
from bema.deploy.launch.launcher import crashes
from tests.cli.served import Served, served

Said = pytest.CaptureFixture[str]


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    with served(tmp_path) as made:
        yield made


def deploy(up: Served, code: str, *options: str) -> int:
    file = up.state / "hello.py"
    file.write_text(code)
    return cli.main(["deploy", str(file), *options])


def test_a_version_is_left_again(up: Served, capsys: Said):
    for number in (1, 2):
        assert deploy(up, f"app = {number}\n") == 0
    assert "hello v2 is ready after" in capsys.readouterr().err
    assert cli.main(["rollback", "hello"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("http://gateway.test/gateway/")
    assert "hello v1 is ready after" in said.err
    assert cli.main(["versions", "hello"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["VERSION", "v2", "v1"]
    assert rows[2][1:5] == ["*", "ready", "100", "%"]
    assert cli.main(["versions", "hello", "--json"]) == 0
    assert [each["current"] for each in json.loads(capsys.readouterr().out)] == [False, True]
    assert cli.main(["rollback", "hello", "v9"]) == 1
    assert "hello has no version v9; it has v1, v2" in capsys.readouterr().err


def test_one_that_fails_ends_the_command_with_its_reason_and_leaves_the_old_one(up: Served, capsys: Said):
    assert deploy(up, "app = 1\n") == 0
    up.platform.launcher.outcomes["hello"] = crashes(1, "KeyError: 'X'")
    capsys.readouterr()
    assert deploy(up, "app = 2\n") == 4
    said = capsys.readouterr().err
    assert "hello: v2 failed, and v1 serves as before" in said
    assert "error start_failed" in said and "KeyError: 'X'" in said
    assert api.deployment("hello")["state"] == "ready"


def test_requests_are_shared_out_promoted_and_given_back(up: Served, capsys: Said):
    assert deploy(up, "app = 1\n") == 0
    assert deploy(up, "app = 2\n", "--traffic", "10") == 0
    assert "hello v2 is ready with 10 % of the requests" in capsys.readouterr().err

    def shares() -> list[list[str]]:
        return [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]

    assert cli.main(["traffic", "hello"]) == 0
    assert shares() == [["v1", "90"], ["v2", "10"]]
    assert cli.main(["traffic", "hello", "v1=50", "2=50", "--sticky", "header:X-User"]) == 0
    assert shares() == [["v1", "50"], ["v2", "50"]]
    assert api.deployment("hello")["settings"]["sticky"] == "header:X-User"
    assert cli.main(["traffic", "hello", "--abort"]) == 0
    assert shares() == [["v1", "100"]]
    assert cli.main(["traffic", "hello", "--promote", "v2"]) == 0
    assert "hello v2 is ready" in capsys.readouterr().err
    assert cli.main(["traffic", "hello", "v1=50"]) == 1
    assert "100 together" in capsys.readouterr().err
    assert cli.main(["traffic", "hello", "v1", "--abort"]) == 1


def test_a_dry_run_tells_a_line_for_each_change(up: Served, capsys: Said):
    assert deploy(up, "app = 1\n", "-e", "A=1", "-e", "B=2") == 0
    capsys.readouterr()
    assert deploy(up, "app = 2\n", "-e", "A=9", "-e", "C=3", "--memory", "1GiB", "--timeout", "5", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == [
        "hello: would make v2",
        "  code: changed",
        "  variable: + C",
        "  variable: ~ A",
        "  variable: - B",
        "  timeout: not set -> 5.0",
        "  memory: not set -> 1073741824",
    ]
    assert deploy(up, "app = 1\n", "--dry-run") == 0
    assert capsys.readouterr().out == "hello: would make no new version\n"
    assert api.deployment("hello")["version"] == "v1"


def test_what_needs_no_new_process_is_changed_while_it_runs(up: Served, capsys: Said):
    assert deploy(up, "app = 1\n", "--timeout", "5") == 0
    capsys.readouterr()
    assert cli.main(["configure", "hello", "--concurrency", "3"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["concurrency", "3"],
        ["timeout", "5.0"],
    ]
    assert cli.main(["configure", "hello", "--concurrency", "0"]) == 1
    assert "concurrency is 0, not between 1 and" in capsys.readouterr().err
    assert cli.main(["configure", "hello"]) == 1
    assert len(up.platform.launcher.started) == 1

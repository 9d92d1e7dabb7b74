"""`bema deploy --upgrade`: what has a name, with its newest packages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bema import cli
from bema.cli import api
from bema.deploy.build.environments import Made, MemoryEnvironments
from bema.deploy.launch.launcher import crashes
from tests.cli.served import Served, served

LOCK = '[[package]]\nname = "six"\nversion = "{}"\n'
Said = pytest.CaptureFixture[str]


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(MemoryEnvironments, "make", locked)
    with served(tmp_path) as made:
        made.platform.environments.newest = LOCK.format("1.17.0")
        file = tmp_path / "hello.py"
        file.write_text("app = 1\n")
        assert cli.main(["deploy", str(file)]) == 0
        yield made


async def locked(self, wanted, told=None):
    return Made(wanted.python.path, "", wanted.lock or LOCK.format("1.16.0"))


def test_it_tells_what_changed_and_waits_until_that_serves(up: Served, capsys: Said):
    capsys.readouterr()
    assert cli.main(["deploy", "--upgrade", "hello"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("http://gateway.test/gateway/")
    assert "six: 1.16.0 -> 1.17.0" in said.err.splitlines()
    assert "hello v2 is ready after" in said.err.splitlines()[-1]
    assert api.deployment("hello")["version"] == "v2"


def test_nothing_newer_makes_no_version(up: Served, capsys: Said):
    assert cli.main(["deploy", "--upgrade", "hello"]) == 0
    capsys.readouterr()
    assert cli.main(["deploy", "--upgrade", "hello", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["version"], found["latest"], found["packages"]) == ("v2", None, [])
    assert "hello stays as it is" in said.err


def test_one_that_fails_leaves_the_old_one(up: Served, capsys: Said):
    up.platform.launcher.outcomes["hello"] = crashes(1, "ImportError: six")
    assert cli.main(["deploy", "--upgrade", "hello"]) == 4
    assert "hello: v2 failed, and v1 serves as before" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["hello.py"], ["--dry-run"], ["--env", "A=1"], ["--timeout", "3"], ["--new"]])
def test_it_takes_nothing_that_would_change_more(up: Served, capsys: Said, more: list[str]):
    assert cli.main(["deploy", "--upgrade", "hello", *more]) == 1
    assert "changes nothing but packages" in capsys.readouterr().err
    assert api.deployment("hello")["latest"] is None


def test_what_is_not_there_is_an_error(up: Served):
    assert cli.main(["deploy", "--upgrade", "nobody"]) == 1

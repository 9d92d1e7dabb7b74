"""`bema outdated`: one deployment, or all; as a table and as data."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bema import cli
from bema.cli import api
from bema.deploy.build.environments import Made, MemoryEnvironments
from tests.cli.served import Served, served

LOCK = '[[package]]\nname = "six"\nversion = "{}"\n'


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(MemoryEnvironments, "make", locked)
    with served(tmp_path) as made:
        made.platform.environments.newest = LOCK.format("1.17.0")
        yield made


async def locked(self, wanted, told=None):
    return Made(wanted.python.path, "", LOCK.format("1.16.0"))


def deployed(name: str) -> None:
    id = api.create(name, "app = 1\n", {})["id"]
    while api.read(id)["state"] in ("building", "starting"):
        pass


def test_what_is_newer_is_a_table_or_data(up: Served, capsys: pytest.CaptureFixture[str]):
    deployed("one")
    deployed("two")
    assert cli.main(["outdated"]) == 0
    said = capsys.readouterr()
    assert [line.split() for line in said.out.splitlines()] == [
        ["DEPLOYMENT", "PACKAGE", "LOCKED", "NEWEST"],
        ["one", "six", "1.16.0", "1.17.0"],
        ["two", "six", "1.16.0", "1.17.0"],
    ]
    assert cli.main(["outdated", "two", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"two": [{"name": "six", "locked": ["1.16.0"], "newest": ["1.17.0"]}]}


def test_nothing_newer_is_said_so(up: Served, capsys: pytest.CaptureFixture[str]):
    up.platform.environments.newest = LOCK.format("1.16.0")
    deployed("one")
    assert cli.main(["outdated", "one"]) == 0
    said = capsys.readouterr()
    assert (said.out, "nothing newer" in said.err) == ("", True)


def test_what_is_not_there_is_an_error(up: Served):
    assert cli.main(["outdated", "nobody"]) == 1

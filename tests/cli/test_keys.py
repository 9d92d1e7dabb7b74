"""`bema keys`: made, listed, revoked; the key alone on stdout."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bema import cli
from bema.core.keys import looks_like_a_key
from tests.cli.served import Served, served


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    with served(tmp_path) as made:
        yield made


def status(url: str, key: str) -> int:
    request = urllib.request.Request(f"{url}/faas/python", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_key_is_made_listed_and_revoked(up: Served, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["keys", "add", "laptop", "--user", "ada", "--expires", "30d"]) == 0
    said = capsys.readouterr()
    key = said.out.strip()
    assert looks_like_a_key(key)
    assert "the user ada" in said.err
    assert status(up.url, key) == 200
    assert cli.main(["keys", "ls"]) == 0
    listed = capsys.readouterr().out
    assert "laptop" in listed
    assert "ada" in listed
    assert key not in listed
    assert cli.main(["keys", "revoke", "laptop"]) == 0
    assert status(up.url, key) == 401
    assert cli.main(["keys", "revoke", "laptop"]) == 1


def test_keys_as_json(up: Served, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["keys", "add", "ops", "--admin", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["user"], made["admin"], made["expires"]) == ("ops", True, 0)
    assert cli.main(["keys", "ls", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed == {name: value for name, value in made.items() if name != "key"}


@pytest.mark.parametrize("time", ["30", "d", "-1d", "0d", "1y", "1.5h"])
def test_a_time_that_is_none_is_refused(up: Served, capsys: pytest.CaptureFixture[str], time: str):
    assert cli.main(["keys", "add", "x", "--expires", time]) == 1
    assert "--expires" in capsys.readouterr().err
    assert cli.main(["keys", "ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []

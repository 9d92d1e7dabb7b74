"""`bema secret`: set from stdin or at a prompt, never as an argument and never printed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bema import cli
from tests.cli.served import Served, served

SECRET = "s3cr3t-of-this-test"


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    with served(tmp_path) as made:
        yield made


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_is_set_from_stdin_listed_and_removed(
    up: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: str
):
    piped(monkeypatch, f"two\n{SECRET}{end}".encode())
    assert cli.main(["secret", "set", "TOKEN", "-"]) == 0
    assert up.platform.parts.secrets.values("local", ["TOKEN"]) == {"TOKEN": f"two\n{SECRET}"}
    assert cli.main(["secret", "ls"]) == 0
    assert cli.main(["secret", "ls", "--json"]) == 0
    assert cli.main(["secret", "rm", "TOKEN"]) == 0
    said = capsys.readouterr()
    assert "TOKEN" in said.out
    assert SECRET not in said.out + said.err
    assert cli.main(["secret", "rm", "TOKEN"]) == 1


def test_a_secret_is_another_users(up: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    piped(monkeypatch, SECRET.encode())
    assert cli.main(["secret", "set", "TOKEN", "-", "--user", "ada"]) == 0
    assert cli.main(["secret", "ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert cli.main(["secret", "ls", "--json", "--user", "ada"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == ["TOKEN"]


def test_a_value_is_no_argument(up: Served, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["secret", "set", "TOKEN", SECRET]) == 1
    assert "stdin" in capsys.readouterr().err


def test_a_value_that_is_no_text_is_refused(up: Served, monkeypatch: pytest.MonkeyPatch):
    piped(monkeypatch, b"\xff")
    assert cli.main(["secret", "set", "TOKEN", "-"]) == 1
    assert up.platform.parts.secrets.all("local") == []

"""The control API as the commands use it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bema import cli
from bema.cli import api
from bema.core.errors import BemaError, Conflict, Denied, NotFound, ProtocolError, Unavailable
from tests.cli.served import Served, holding, served


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def up(state: Path) -> Iterator[Served]:
    with served(state) as made:
        yield made


def test_where_nothing_is_up_every_command_says_so_and_exits_3(state: Path, capsys: pytest.CaptureFixture[str]):
    (state / "a.py").write_text("x = 1")
    for arguments in (["deploy", str(state / "a.py")], ["rm", "a"], ["logs", "a"]):
        assert cli.main(arguments) == 3
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"error not_up: nothing runs on {state}")


def test_a_deployment_is_made_found_by_name_and_by_id_and_removed(up: Served):
    made = api.create("hello", "app = 1", {"K": "V"})
    assert made["url"] == f"http://gateway.test/gateway/{made['id']}"
    assert api.deployment("hello")["id"] == api.deployment(made["id"])["id"] == made["id"]
    api.delete(made["id"])
    with pytest.raises(NotFound):
        api.deployment("hello")
    with pytest.raises(NotFound):
        api.read(made["id"])


def test_what_the_api_refuses_is_raised_with_its_details(up: Served):
    made = api.create("hello", "app = 1", {}, key="k")
    assert api.create("hello", "app = 1", {}, key="k")["id"] == made["id"]
    with pytest.raises(Conflict) as taken:
        api.create("hello", "app = 2", {})
    assert taken.value.details["id"] == made["id"]
    with pytest.raises(BemaError) as reused:
        api.create("other", "app = 1", {}, key="k")
    assert reused.value.code == "key_reused"
    with pytest.raises(BemaError, match="line 1, column 5") as wrong:
        api.create("bad", "def (", {})
    assert (wrong.value.code, wrong.value.details["line"]) == ("syntax_error", 1)


def test_every_page_of_a_long_list_is_read(up: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api, "_PAGE", 2)
    for n in range(5):
        api.create(f"s{n}", "app = 1", {})
    assert [d["name"] for d in api.deployments()] == ["s0", "s1", "s2", "s3", "s4"]


def test_a_wrong_token_is_refused_and_a_missing_one_said(up: Served):
    (up.state / "token").write_text("another")
    with pytest.raises(Denied):
        api.deployments()
    (up.state / "token").unlink()
    with pytest.raises(Unavailable, match="token"):
        api.deployments()


def test_a_platform_that_does_not_answer(state: Path):
    (state / "token").write_text("t")
    (state / "up.json").write_text(json.dumps({"api": "http://127.0.0.1:1", "token_file": str(state / "token")}))
    with holding(state), pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1 does not answer"):
        api.deployments()


@pytest.mark.parametrize("text", [b"<html>", b"[]"])
def test_an_answer_that_is_not_ours(text: bytes):
    with pytest.raises(ProtocolError):
        api._decoded(text)


def test_removing_from_the_shell(up: Served, capsys: pytest.CaptureFixture[str]):
    api.create("hello", "app = 1", {})
    assert cli.main(["rm", "hello"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "hello is removed\n")
    assert cli.main(["rm", "hello"]) == 1
    assert "error not_found: there is no deployment named 'hello'" in capsys.readouterr().err

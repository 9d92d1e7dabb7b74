"""`bema deploy`, from the file to the URL, or to the reason."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bema import cli
from bema.cli import api
from bema.cli.rollout import failure
from bema.core.errors import Unavailable
from bema.deploy.launch.launcher import crashes
from bema.deploy.sources.names import name_of
from tests.cli.served import Served, served


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    with served(tmp_path) as made:
        yield made


def file(up: Served, name: str = "my_app.py", code: str = "app = 1\n") -> str:
    path = up.state / name
    path.write_text(code)
    return str(path)


def test_it_waits_until_ready_and_prints_the_url(up: Served, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["deploy", file(up), "--env", "GREETING=hi=there"]) == 0
    said = capsys.readouterr()
    (url,) = said.out.splitlines()
    assert url.startswith("http://gateway.test/gateway/")
    assert said.err.splitlines()[0] == "my-app building"
    assert "my-app v1 is ready after" in said.err.splitlines()[-1]
    assert up.platform.launcher.started[0].env == {"GREETING": "hi=there"}


def test_json_is_one_document_on_stdout(up: Served, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["deploy", file(up), "--name", "other", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["state"], found["kind"]) == ("other", "ready", "app")


def test_no_wait_returns_once_it_is_accepted(up: Served, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["deploy", file(up), "--no-wait", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "building"


def test_a_script_comes_from_stdin_too(up: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("app = 1\n"))
    assert cli.main(["deploy", "-", "--name", "piped"]) == 0
    assert up.platform.launcher.started[0].name == "piped"


def test_a_script_that_fails_to_start_exits_4_with_its_last_lines(up: Served, capsys: pytest.CaptureFixture[str]):
    up.platform.launcher.outcomes["my-app"] = crashes(1, "KeyError: 'X'")
    assert cli.main(["deploy", file(up)]) == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert "error start_failed: my-app never listened: it ended with code 1\n  | KeyError: 'X'\n" in said.err


def test_a_build_that_fails_exits_1_with_the_resolvers_text(up: Served, capsys: pytest.CaptureFixture[str]):
    up.platform.environments.failures["nope"] = "nope was not found"
    code = '# /// script\n# dependencies = ["nope"]\n# ///\n'
    assert cli.main(["deploy", file(up, code=code), "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["state"] == "build_failed"
    told = json.loads(said.err.splitlines()[-1])["error"]
    assert (told["code"], told["log"]) == ("build_failed", ["nope was not found"])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def (", "error syntax_error: line 1, column 5"),
        ("# /// script\n", "error pep723_unclosed: line 1"),
        ("# /// script\n# x =\n# ///\n", "error pep723_malformed: line 2"),
        ("# /// script\n# ///\n\n# /// script\n# ///\n", "error pep723_duplicated: line 4"),
    ],
)
def test_what_is_refused_names_the_line(up: Served, capsys: pytest.CaptureFixture[str], code: str, error: str):
    assert cli.main(["deploy", file(up, code=code)]) == 1
    assert capsys.readouterr().err.startswith(error)
    assert up.platform.launcher.started == []


def test_a_name_in_use(up: Served, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["deploy", file(up)]) == 0
    capsys.readouterr()
    assert cli.main(["deploy", file(up), "--new"]) == 1
    assert "error name_taken: a deployment named 'my-app' exists" in capsys.readouterr().err


def test_waiting_goes_on_while_a_part_of_the_platform_is_replaced(up: Served, monkeypatch: pytest.MonkeyPatch):
    read, absences = api.read, [Unavailable("the orchestrator is away")] * 3

    def away(id: str) -> api.Json:
        if absences:
            raise absences.pop()
        return read(id)

    monkeypatch.setattr(api, "read", away)
    assert cli.main(["deploy", file(up)]) == 0
    assert absences == []


def test_waiting_ends_with_the_platform(up: Served, monkeypatch: pytest.MonkeyPatch):
    def gone(id: str) -> api.Json:
        raise Unavailable(code="not_up")

    monkeypatch.setattr(api, "read", gone)
    assert cli.main(["deploy", file(up)]) == 3


@pytest.mark.parametrize("arguments", [["nowhere.py"], ["-e", "novalue"]])
def test_bad_arguments(up: Served, capsys: pytest.CaptureFixture[str], arguments: list[str]):
    assert cli.main(["deploy", *arguments, *([] if arguments[0] != "-e" else [file(up)])]) == 1
    assert capsys.readouterr().err.startswith("error ")


def test_a_file_that_is_not_utf8(up: Served, capsys: pytest.CaptureFixture[str]):
    path = up.state / "latin.py"
    path.write_bytes(b"x = '\xe9'")
    assert cli.main(["deploy", str(path)]) == 1
    assert "is not UTF-8: byte 5" in capsys.readouterr().err


def test_a_failure_without_words_still_has_its_code():
    assert failure({"state": "crash_loop", "error": None}).problem.exit == 4


@pytest.mark.parametrize(
    ("path", "name"),
    [("/x/Chat_Bot 2.py", "chat-bot-2"), ("_.py", ""), ("a" * 99 + ".py", "a" * 63), ("héllo.py", "h-llo")],
)
def test_a_name_from_a_file(path: str, name: str):
    assert name_of(Path(path)) == name

"""`bema rm`: says what goes, keeps what was written, asks a person and nobody else."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bema import cli
from bema.cli import api
from tests.cli.served import Served, served
from tests.cli.terminal import Terminal


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    with served(tmp_path) as made:
        yield made


Said = pytest.CaptureFixture[str]


def deployed(up: Served, name: str, *notes: str) -> str:
    """A deployment that wrote `notes`, each to a file of its own; gives the folder it wrote to."""
    made = api.create(name, "app = 1\n", {})
    home = up.platform.parts.home(made["id"]) / "home"
    home.mkdir(parents=True)
    for number, note in enumerate(notes):
        (home / f"{number}.txt").write_text(note)
    return str(home)


def names(kept: bool = False) -> list[str]:
    return [each["name"] for each in (api.data(kept=True) if kept else api.deployments())]


def test_it_says_what_goes_and_what_stays(up: Served, capsys: Said):
    deployed(up, "hello", "one", "two")
    assert cli.main(["rm", "hello"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "hello is removed; what it wrote (2 files, 6 bytes) is kept for the next of that name, "
        "and `bema rm hello --purge` deletes it\n"
    )
    assert (names(), names(kept=True)) == ([], ["hello"])


def test_what_is_kept_is_listed_and_found_again(up: Served, capsys: Said):
    deployed(up, "hello", "x" * 1500)
    assert cli.main(["rm", "hello", "--yes"]) == 0
    capsys.readouterr()
    assert cli.main(["ls", "--kept"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split() == ["KEPT", "OF", "FILES", "SIZE", "SINCE"]
    assert said.out.splitlines()[1].split()[:4] == ["hello", "1", "1.5", "kB"]
    assert "bema rm NAME --purge" in said.err
    assert cli.main(["ls", "--kept", "--json"]) == 0
    [kept] = json.loads(capsys.readouterr().out)
    assert (kept["name"], kept["deployment"], kept["files"], kept["bytes"]) == ("hello", None, 1, 1500)
    assert cli.main(["deploy", str(script(up))]) == 0
    assert names(kept=True) == []
    assert api.data(name="hello")[0]["id"] == kept["id"]


def script(up: Served) -> Path:
    (path := up.state / "hello.py").write_text("app = 1\n")
    return path


def test_nothing_kept_is_said(up: Served, capsys: Said):
    assert cli.main(["ls", "--kept"]) == 0
    assert capsys.readouterr() == ("", "nothing is kept of a deployment that was removed\n")


def test_purging_deletes_it_at_once_or_later(up: Served, capsys: Said):
    deployed(up, "one", "x")
    deployed(up, "two", "x")
    assert cli.main(["rm", "one", "--purge"]) == 0
    assert capsys.readouterr().err == "one is removed, with what it wrote (1 file, 1 byte)\n"
    assert cli.main(["rm", "two"]) == 0
    assert names(kept=True) == ["two"]
    capsys.readouterr()
    assert cli.main(["rm", "two"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error not_found: there is no deployment named 'two'")
    assert "fix: What two wrote is kept: `bema rm two --purge` deletes it." in said
    assert cli.main(["rm", "two", "--purge", "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)
    assert (told["name"], told["id"], told["kept"], told["purged"]["files"]) == ("two", None, None, 1)
    assert names(kept=True) == []
    assert list((up.state / "homes").iterdir()) == []


def test_several_at_once_as_data(up: Served, capsys: Said):
    deployed(up, "one", "x")
    deployed(up, "two")
    ids = {each["name"]: each["id"] for each in api.deployments()}
    assert cli.main(["rm", "one", ids["two"], "one", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["id"]) for each in told] == list(ids.items())
    assert [each["kept"] and each["kept"]["bytes"] for each in told] == [1, None]
    assert names() == []


def test_one_that_is_not_there_keeps_all(up: Served, capsys: Said):
    deployed(up, "one")
    assert cli.main(["rm", "one", "nobody", "--json"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert json.loads(said.err)["error"]["code"] == "not_found"
    assert names() == ["one"]


@pytest.mark.parametrize(("typed", "code", "left"), [("y\n", 0, []), ("n\n", 130, ["hello"]), ("\n", 130, ["hello"])])
def test_a_person_is_asked(up: Served, typed: str, code: int, left: list[str]):
    deployed(up, "hello", "one")
    terminal = Terminal("rm", "hello", BEMA_STATE_DIR=str(up.state))
    said = terminal.until(lambda text: "Go on?" in text)
    assert "): removes its URL, its instance and its logs" in said
    assert "hello: keeps what it wrote (1 file, 3 bytes)" in said
    assert names() == ["hello"]
    terminal.type(typed)
    assert terminal.end()[0] == code
    assert names() == left


def test_whoever_says_yes_is_not_asked(up: Served):
    deployed(up, "hello")
    code, said = Terminal("rm", "hello", "--yes", BEMA_STATE_DIR=str(up.state)).end()
    assert (code, "Go on?" in said) == (0, False)
    assert names() == []


def test_a_taken_name_is_told_a_remedy_that_loses_nothing(up: Served, capsys: Said):
    home = deployed(up, "hello", "one")
    for _ in range(2):
        assert cli.main(["deploy", str(script(up)), "--new"]) in (0, 1)
    said = capsys.readouterr().err
    assert "error name_taken" in said
    assert "`bema rm NAME`, which keeps what it wrote" in said
    assert cli.main(["rm", "hello"]) == 0
    assert (Path(home) / "0.txt").read_text() == "one"

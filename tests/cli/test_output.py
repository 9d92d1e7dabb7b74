"""What the commands print, and what the edge makes of a failure; in this process, on streams of our own."""

from __future__ import annotations

import datetime as dt
import enum
import io
import json
from pathlib import Path

import click
import msgspec
import pytest

from bema.cli import errors, output
from bema.core.errors import BemaError, Conflict, Failed
from bema.core.problems import PROBLEMS


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Colour(enum.Enum):
    RED = "red"


class Row(msgspec.Struct):
    name: str
    when: dt.datetime
    where: Path
    colour: Colour


def raising(error):
    def command():
        raise error

    return command


def test_json_takes_structs_dates_paths_and_enums_as_they_are(capsys):
    output.print_json([Row("a", dt.datetime(2026, 1, 2, tzinfo=dt.UTC), Path("/x"), Colour.RED)])
    assert json.loads(capsys.readouterr().out) == [
        {"name": "a", "when": "2026-01-02T00:00:00Z", "where": "/x", "colour": "red"}
    ]


def test_a_json_stream_is_one_document_a_line(capsys):
    output.print_json_line({"a": 1})
    output.print_json_line({"a": "x\ny"})
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"a": 1}, {"a": "x\ny"}]


def test_a_table_is_aligned_and_has_no_trailing_blanks(capsys):
    output.print_table(("NAME", "N"), [("a", 1), ("longer", 22)])
    assert capsys.readouterr().out == "NAME    N\na       1\nlonger  22\n"


def test_an_empty_table_is_its_heading(capsys):
    output.print_table(("NAME", "STATE"), [])
    assert capsys.readouterr().out == "NAME  STATE\n"


def test_data_goes_to_stdout_and_the_rest_to_stderr(capsys):
    output.print_text("data")
    output.note("a hint")
    assert capsys.readouterr() == ("data\n", "a hint\n")


def test_a_pipe_gets_no_colour(capsys):
    output.print_text(output.style("data", fg="red", bold=True))
    assert capsys.readouterr().out == "data\n"


@pytest.mark.parametrize(
    ("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_gets_colour_unless_its_user_said_no(env, coloured, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert output.coloured(Terminal()) is coloured
    assert output.coloured(io.StringIO()) is False


def test_progress_is_one_changing_line_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with output.Progress(stream) as progress:
        progress.step("building")
        progress.step("starting")
    assert stream.getvalue() == "\r\x1b[2Kbuilding\r\x1b[2Kstarting\r\x1b[2K"


def test_progress_is_a_plain_line_per_new_step_when_piped():
    stream = io.StringIO()
    with output.Progress(stream) as progress:
        progress.step("building")
        progress.step("building")
        progress.step("starting")
    assert stream.getvalue() == "building\nstarting\n"


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_code_leaves_with_the_exit_code_of_its_row(code, capsys):
    assert errors.edge(raising(BemaError("went wrong", code=code))) == PROBLEMS[code].exit
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error {code}: went wrong\n  fix: {PROBLEMS[code].fix}\n  more: bema explain {code}\n"


def test_the_log_of_a_failed_start_is_shown_under_its_line(capsys):
    errors.edge(raising(Failed("api ended with 1", log=["Traceback:", "KeyError: 'DB'"])))
    assert "error start_failed: api ended with 1\n  | Traceback:\n  | KeyError: 'DB'\n  fix:" in capsys.readouterr().err


def test_with_json_the_error_is_json_on_stderr(capsys):
    assert errors.edge(raising(Conflict("api is taken", id="x1")), in_json=True) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["error"] == {
        "code": "name_taken",
        "message": "api is taken",
        "fix": PROBLEMS["name_taken"].fix,
        "trace_id": "",
        "id": "x1",
    }


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["ls", "--json"], True),
        (["ls"], False),
        (["call", "a", "--", "--json"], False),
        (["--json", "--"], True),
        ([], False),
    ],
)
def test_json_is_known_before_the_line_is_parsed(argv, wanted):
    assert errors.wants_json(argv) is wanted


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_is_130_without_a_word(interruption, capsys):
    assert errors.edge(raising(interruption)) == 130
    assert capsys.readouterr() == ("", "")


def test_a_command_line_that_cannot_be_read_is_the_users_fault(capsys):
    assert errors.edge(raising(click.UsageError("no such option"))) == 1
    assert capsys.readouterr().err.startswith("error usage: no such option\n")


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3), ("text", 0)])
def test_what_a_command_returns_is_its_exit_code_if_it_is_one(returned, code):
    assert errors.edge(lambda: returned) == code


def test_a_failure_of_ours_is_one_line_and_its_traceback_is_kept(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))
    assert errors.edge(raising(KeyError("x"))) == 2
    kept = tmp_path / "state" / "traceback.txt"
    assert capsys.readouterr().err == (
        f"error internal: KeyError: 'x'\n  fix: Report it with the traceback in {kept}.\n  more: bema explain internal\n"
    )
    assert "raise error\nKeyError: 'x'" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_where_it_cannot_be_kept_it_is_shown(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "file"))
    assert errors.edge(raising(KeyError("x"))) == 2
    assert capsys.readouterr().err.startswith("Traceback (most recent call last)")


def test_whoever_asks_sees_every_traceback(capsys, monkeypatch):
    monkeypatch.setenv("BEMA_TRACEBACK", "1")
    errors.edge(raising(Conflict("taken")))
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert "error name_taken: taken" in err

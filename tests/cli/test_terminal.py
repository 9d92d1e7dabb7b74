"""What others wrote commands no terminal: logs, failures, lists and answers show control characters as what they are."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bema import cli
from bema.cli import api
from bema.deploy.launch.launcher import crashes, hangs
from tests.cli.served import Served, served
from tests.cli.terminal import Terminal

EVIL = "\x1b]0;owned\x07\x1b[31mred\x9b2J\rgone"


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    with served(tmp_path) as made:
        yield made


def log(up: Served, *events: str) -> None:
    made = api.create("hello", "app = 1\n", {})
    path = up.state / "logs" / made["id"] / "0123456789abc.ndjson"
    path.parent.mkdir(parents=True)
    records = [{"ts": n, "instance": "0123456789abc", "stream": "stdout", "event": e} for n, e in enumerate(events)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def harmless(said: str) -> bool:
    # our own colours end in `m`, and have nothing of the text in them
    return not any(mark in said for mark in ("\x1b]", "\x1b[31mred", "\x9b", "\x07", "\rgone"))


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_log_on_a_terminal(up: Served, options: tuple[str, ...]):
    log(up, EVIL)
    code, said = Terminal("logs", "hello", *options, BEMA_STATE_DIR=str(up.state)).end()
    assert code == 0
    assert harmless(said), said
    assert "owned" in said
    if options:
        assert json.loads(said)["event"] == EVIL


def test_a_log_in_a_pipe_has_no_line_that_is_not_ours(up: Served, capsys: pytest.CaptureFixture[str]):
    log(up, "first\n12:00:00.000 9abc bema   ERROR   forged", "last\r12:00:00.000 9abc forged\u2028forged")
    assert cli.main(["logs", "hello"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" first")
    assert lines[1] == "    | 12:00:00.000 9abc bema   ERROR   forged"
    assert len(lines) == 3
    assert cli.main(["logs", "hello", "--json"]) == 0
    assert [json.loads(line)["event"][:5] for line in capsys.readouterr().out.splitlines()] == ["first", "last\r"]


def test_a_failure(up: Served):
    up.platform.launcher.outcomes["hello"] = crashes(1, EVIL)
    (up.state / "hello.py").write_text("app = 1\n")
    code, said = Terminal("deploy", str(up.state / "hello.py"), BEMA_STATE_DIR=str(up.state)).end()
    assert code == 4
    assert harmless(said.replace("\r\x1b[2K", "")), said
    assert "red" in said


def test_a_name_that_is_typed(up: Served):
    code, said = Terminal("logs", EVIL, BEMA_STATE_DIR=str(up.state)).end()
    assert (code, harmless(said)) == (1, True), said


def test_ctrl_c_while_it_is_deployed_says_what_goes_on(up: Served):
    up.platform.launcher.outcomes["hello"] = hangs
    (up.state / "hello.py").write_text("app = 1\n")
    terminal = Terminal("deploy", str(up.state / "hello.py"), BEMA_STATE_DIR=str(up.state))
    terminal.until(lambda text: "starting" in text)
    terminal.interrupt()
    code, said = terminal.end()
    assert code == 130
    assert "hello is still being deployed" in said
    assert all(f"`bema {line}`" in said for line in ("logs hello -f", "ls", "rm hello"))
    assert api.deployment("hello")["state"] == "starting"

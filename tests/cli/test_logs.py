"""`bema logs`: past lines, new lines, as text and as JSON."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bema import cli
from bema.cli import api
from bema.cli.logs import line_of
from tests.cli.served import Served, served


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    with served(tmp_path) as made:
        yield made


class Log:
    def __init__(self, up: Served, id: str) -> None:
        self.path = up.state / "logs" / id / "0123456789abc.ndjson"
        self.path.parent.mkdir(parents=True)

    def write(self, *events: str) -> None:
        with self.path.open("a") as file:
            for n, event in enumerate(events):
                record = {
                    "ts": 1_700_000_000_123_456 + n,
                    "instance": "0123456789abc",
                    "stream": "stdout",
                    "event": event,
                }
                file.write(json.dumps(record) + "\n")


def test_the_last_lines(up: Served, capsys: pytest.CaptureFixture[str]):
    Log(up, api.create("hello", "app = 1", {})["id"]).write("one", "two", "three")
    assert cli.main(["logs", "hello", "--tail", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:] for line in lines] == [
        ["9abc", "stdout", "INFO", "two"],
        ["9abc", "stdout", "INFO", "three"],
    ]
    assert cli.main(["logs", "hello", "--json", "-n", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["event"] == "three"


def test_following_prints_lines_as_they_come_and_ends_with_the_deployment(up: Served):
    made = api.create("hello", "app = 1", {})
    log = Log(up, made["id"])
    log.write("old")
    seen: list[str] = []
    arrived = {event: threading.Event() for event in ("old", "new")}

    def follow() -> None:
        for record in api.logs(made["id"], tail=1, follow=True):
            seen.append(record["event"])
            arrived[record["event"]].set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert arrived["old"].wait(10)
    log.write("new")
    assert arrived["new"].wait(10)
    api.delete(made["id"])
    thread.join(10)
    assert not thread.is_alive()
    assert seen == ["old", "new"]


def test_a_deployment_that_is_not_there(up: Served, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["logs", "nobody"]) == 1
    assert "there is no deployment named 'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"stream": "stdout", "event": "plain"}, "stdout INFO    plain"),
        ({"stream": "stderr", "event": "loud"}, "\x1b[33mstderr\x1b[0m INFO    loud"),
        ({"stream": "bema", "event": "ours"}, "\x1b[34mbema  \x1b[0m INFO    ours"),
        (
            {"stream": "stderr", "event": "broke", "level": "error", "trace_id": "ab12"},
            "\x1b[33mstderr\x1b[0m \x1b[31mERROR  \x1b[0m broke  trace=ab12",
        ),
    ],
)
def test_what_is_not_stdout_is_marked(record: dict[str, Any], shown: str):
    assert line_of({"ts": 0, "instance": "0123456789abc", **record}).endswith(f".000 9abc {shown}")


def test_a_line_has_its_date_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    record = {"ts": 1_700_000_000_123_456, "instance": "0123456789abc", "stream": "stdout", "event": "one"}
    assert line_of(record, timestamps=True).startswith("2023-11-14T22:13:20.123+00:00 9abc ")

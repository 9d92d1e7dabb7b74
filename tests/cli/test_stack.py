"""`bema stack` and `bema profile`: what they print, draw and refuse."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from bema import cli
from bema.cli import api
from bema.cli.stack import lines_of
from bema.deploy.launch.launcher import hangs
from bema.deploy.model.stack import Stack, StackFrame, TaskStack, ThreadStack
from tests.cli.served import Served, served

FRAME = StackFrame(
    file="/v/main.py", line=42, function="ask", text="return requests.get(URL)", call="requests.get", own=True
)


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with served(tmp_path) as made:
        yield made


def running(up: Served, name: str = "hello") -> int:
    """Its instance, once there is one."""
    id = api.create(name, "app = 1", {})["id"]
    while api.read(id)["instance"] is None:
        pass
    return up.platform.launcher.instances[-1]


def test_the_stack_is_printed_with_the_scripts_lines(up: Served, capsys: pytest.CaptureFixture[str]):
    instance = running(up)
    up.platform.launcher.stacks[instance] = Stack(
        instance="one", version="v1", threads=(ThreadStack(name="MainThread", main=True, frames=(FRAME,)),)
    )
    assert cli.main(["stack", "hello"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "instance one v1",
        "thread MainThread",
        "  > /v/main.py:42 in ask",
        "      return requests.get(URL)",
    ]
    assert cli.main(["stack", "hello", "--json", "--version", "v1"]) == 0
    assert json.loads(capsys.readouterr().out)["threads"][0]["frames"][0]["call"] == "requests.get"


def test_tasks_are_told_with_what_they_wait_for():
    told: dict[str, Any] = {
        "threads": [{"name": "MainThread", "idle": True}],
        "tasks": [{"name": "a", "running": True}, {"name": "b\x1b[31m", "waits_for": "a"}],
    }
    assert [click.unstyle(line) for line in lines_of(told)] == [
        "instance  ",
        "thread MainThread, its event loop waits",
        "task a, running",
        r"task b\x1b[31m, waits for a",
    ]


def test_what_c_code_holds_is_said_beside_the_data(up: Served, capsys: pytest.CaptureFixture[str]):
    instance = running(up)
    up.platform.launcher.stacks[instance] = Stack(held=True, tasks=(TaskStack(name="never"),))
    assert cli.main(["stack", "hello"]) == 0
    assert "C code holds the interpreter" in capsys.readouterr().err


def test_the_profile_is_drawn_into_a_file(up: Served, capsys: pytest.CaptureFixture[str]):
    running(up)
    assert cli.main(["profile", "hello", "--seconds", "1"]) == 0
    said = capsys.readouterr()
    assert said.out == "hello.svg\n"
    assert ET.parse("hello.svg").getroot().tag.endswith("svg")
    assert "--idle" in said.err
    assert cli.main(["profile", "hello", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stacks"] == []


def test_a_drawing_that_cannot_be_written_is_an_error(up: Served, capsys: pytest.CaptureFixture[str]):
    running(up)
    assert cli.main(["profile", "hello", "-o", "/nowhere/x.svg"]) == 1
    assert "/nowhere/x.svg cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("which", [[], ["--version", "v7"], ["--instance", "zzz"]])
def test_what_does_not_run_is_not_looked_at(up: Served, capsys: pytest.CaptureFixture[str], which: list[str]):
    if which:
        running(up)
    else:
        up.platform.environments.failures["nothing-of-that-name"] = "there is none"
        api.create("hello", "# /// script\n# dependencies = ['nothing-of-that-name']\n# ///\napp = 1", {})
    assert cli.main(["stack", "hello", *which]) == 1
    said = capsys.readouterr().err
    assert "of hello runs" in said
    assert "bema ls" in said


def test_one_that_is_only_starting_is_looked_at(up: Served, capsys: pytest.CaptureFixture[str]):
    up.platform.launcher.outcomes["hello"] = hangs
    running(up)
    assert cli.main(["stack", "hello"]) == 0

"""`bema doctor`: what it finds, on a machine that is well and on one that is not."""

from __future__ import annotations

import json
import socket

import pytest

from bema.cli import doctor
from bema.core.settings import read
from bema.runner import sandbox


def settings(tmp_path, **env):
    return read({"BEMA_STATE_DIR": str(tmp_path / "state"), **env}, {})


@pytest.fixture
def taken():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_every_check_says_what_it_found_and_nothing_fails_here(bema):
    done = bema("doctor", "--json")
    findings = json.loads(done.stdout)
    assert [finding["check"] for finding in findings] == [
        "python", "venv", "uv", "gateway port", "control port", "state",
        "flock", "inotify", "disk", "clock", "extras", "isolation",
    ]  # fmt: skip
    assert [finding for finding in findings if finding["level"] == "fail"] == []
    assert done.returncode == 0


def test_as_text_it_is_one_line_each_with_the_fix_below(bema):
    lines = bema("doctor", BEMA_ISOLATION__KIND="none").stdout.splitlines()
    assert lines[0].split()[:2] == ["ok", "python"]
    assert lines[-2].endswith("deployed scripts have 'none': your rights")
    assert lines[-1] == "      fix: Take isolation.kind = none away."


@pytest.mark.parametrize(
    ("level", "asked", "found"),
    [
        ("full", "strict", "ok"),
        ("full", "standard", "ok"),
        ("full", "none", "note"),
        ("files", "standard", "note"),
        ("basic", "standard", "note"),
        ("network", "strict", "fail"),
        ("basic", "filtered", "fail"),
    ],
)
def test_isolation_is_told_with_what_it_leaves_out(tmp_path, monkeypatch, level, asked, found):
    monkeypatch.setattr(sandbox, "level", lambda: level)
    finding = doctor.isolation(settings(tmp_path, BEMA_ISOLATION__KIND=asked))
    assert finding.level == found
    assert finding.says.startswith(f"level {level}, of basic, files, network, full; deployed scripts have {asked!r}")
    assert ("signals and abstract sockets" in finding.says) == (level != "full" and asked != "none")


def test_looking_leaves_nothing_behind(bema):
    bema("doctor")
    assert [path for path in bema.folder.rglob("*") if "__pycache__" not in path.parts] == []


def test_a_taken_port_is_a_note_unless_it_was_asked_for(tmp_path, taken):
    asked = doctor.gateway_port(settings(tmp_path, BEMA_GATEWAY__PORT=str(taken)))
    assert (asked.level, str(taken) in asked.says) == ("fail", True)
    assert "gateway.port" in asked.fix


def test_a_failed_check_makes_the_exit_code_1(bema, taken):
    done = bema("doctor", BEMA_CONTROL__PORT=str(taken))
    assert done.returncode == 1
    assert f"fail  control port  127.0.0.1:{taken}" in done.stdout


def test_a_port_held_by_our_own_platform_is_well(tmp_path, taken):
    state = tmp_path / "state"
    state.mkdir()
    (state / "up.json").write_text(json.dumps({"gateway": f"http://127.0.0.1:{taken}", "api": "http://127.0.0.1:1"}))
    finding = doctor.gateway_port(settings(tmp_path, BEMA_GATEWAY__PORT=str(taken)))
    assert finding.level == "ok"


def test_a_state_folder_that_cannot_be_made_fails_with_its_name(tmp_path):
    finding = doctor.state(read({"BEMA_STATE_DIR": "/proc/nowhere/state"}, {}))
    assert finding.level == "fail"
    assert finding.says.startswith("/proc/nowhere/state: ")
    assert "BEMA_STATE_DIR" in finding.fix


def test_a_missing_ensurepip_is_answered_with_the_one_line_that_mends_it(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    finding = doctor.environments(settings(tmp_path))
    assert finding.level == "note"
    assert finding.fix.startswith("sudo apt install python3.")


def test_a_missing_extra_is_named_with_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setitem(doctor.EXTRAS, "http", ("uvicorn", "no_such_module"))
    finding = doctor.extras(settings(tmp_path))
    assert (finding.level, finding.says) == ("note", "http lacks no_such_module")
    assert finding.fix.startswith("pip install 'bema[http] @ file:///")


def test_a_clock_behind_the_files_of_bema_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    finding = doctor.clock(settings(tmp_path))
    assert (finding.level, finding.fix) == ("fail", "Set the clock.")


def test_a_state_directory_that_is_no_folder_is_told_as_what_it_is(tmp_path):
    (file := tmp_path / "state").touch()
    (gone := tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for there, says in ((file, "is a file"), (gone, "which is not there"), (file / "deep", "is no folder")):
        finding = doctor.state(settings(tmp_path, BEMA_STATE_DIR=str(there)))
        assert (finding.level, says in finding.says) == ("fail", True), finding
        assert finding.fix
    (tmp_path / "linked").symlink_to(tmp_path)
    assert doctor.state(settings(tmp_path, BEMA_STATE_DIR=str(tmp_path / "linked"))).level == "ok"

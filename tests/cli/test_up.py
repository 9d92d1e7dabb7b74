"""`bema up` as a user runs it, with the real platform behind it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.keeper.conftest import alive, until


class Up:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BEMA_")},
            "BEMA_STATE_DIR": str(state),
            "BEMA_GATEWAY__PORT": "0",
            "BEMA_CONTROL__PORT": "0",
        }
        self.started: list[subprocess.Popen[Any]] = []

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "bema", "up", *arguments],
            env={**self.env, **env},
            cwd=self.state.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def bema(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bema", *arguments],
            env={**self.env, **env},
            cwd=self.state.parent,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)


@pytest.fixture
def platform(tmp_path):
    platform = Up(tmp_path / "state")
    yield platform
    platform.close()


@pytest.mark.slow
def test_it_prints_where_it_is_serves_until_ctrl_c_and_leaves_nothing(platform):
    process = platform.start()
    banner = [process.stdout.readline() for _ in range(10)]
    assert "is up" in banner[0]
    status = json.loads(platform.bema("status", "--json").stdout)
    assert {f"  gateway  {status['gateway']}\n", f"  api      {status['api']}\n"} <= set(banner)
    assert status["pid"] == process.pid
    pids = {each["name"]: each["pid"] for each in status["processes"]}
    assert set(pids) == {"orchestrator", "gateway"}
    assert Path(status["token_file"]).stat().st_mode & 0o777 == 0o600

    second = platform.bema("up")
    assert (second.returncode, second.stdout) == (1, "")
    assert f"already_up: another `bema up` (process {process.pid}" in second.stderr
    assert "Traceback" not in second.stderr

    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not any(map(alive, pids.values()))
    down = platform.bema("status")
    assert (down.returncode, down.stderr.split(":")[0]) == (3, "error not_up")


@pytest.mark.slow
def test_after_kill_9_everything_ends_and_the_next_one_starts(platform):
    process = platform.start()
    assert "is up" in process.stdout.readline()
    before = json.loads(platform.bema("status", "--json").stdout)
    process.kill()
    process.wait()
    until(lambda: not any(alive(each["pid"]) for each in before["processes"]))
    assert platform.bema("status").returncode == 3

    again = platform.start()
    assert "is up" in again.stdout.readline()
    after = json.loads(platform.bema("status", "--json").stdout)
    assert after["pid"] == again.pid != before["pid"]


@pytest.mark.slow
def test_what_is_typed_in_a_checkout_finds_the_platform_that_runs_in_its_bema_folder(tmp_path):
    platform = Up(tmp_path / "checkout" / ".bema")
    (deep := tmp_path / "checkout" / "docs" / "deep").mkdir(parents=True)
    platform.env |= {"HOME": str(tmp_path / "home"), "XDG_STATE_HOME": "", "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    there = {name: value for name, value in platform.env.items() if name != "BEMA_STATE_DIR"}

    def bema(*arguments: str, folder: Path = deep, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bema", *arguments]
        return subprocess.run(command, env={**there, **env}, cwd=folder, capture_output=True, text=True, timeout=60)

    try:
        process = platform.start()
        assert process.stdout is not None
        assert "is up" in process.stdout.readline()
        assert json.loads(bema("status", "--json").stdout)["pid"] == process.pid
        assert f"{platform.state} (the platform that runs here)" in bema("status").stdout
        shown = json.loads(bema("config", "show", "--origin", "--json").stdout)
        assert shown["state_dir"] == {"value": str(platform.state), "origin": "the platform that runs here"}
        assert json.loads(bema("ls", "--json").stdout)["deployments"] == []
        assert bema("new", "hello").returncode == 0
        assert "/gateway/" in bema("deploy", "hello.py").stdout
        assert bema("new", "tea").returncode == 0
        by_hand = subprocess.Popen([sys.executable, "tea.py"], cwd=deep, env=there, stderr=subprocess.DEVNULL)
        platform.started.append(by_hand)
        assert bema("call", "default.tea.greet", "name=ada", folder=tmp_path / "checkout").stdout == "hello ada\n"
        second = bema("up")
        assert (second.returncode, second.stderr.split(":")[0]) == (1, "error already_up")

        assert bema("status", folder=tmp_path).returncode == 3, "it is not above this folder"
        assert bema("status", BEMA_STATE_DIR="").returncode == 3, "an empty variable looks for none"
        assert str(tmp_path / "other") in bema("status", BEMA_STATE_DIR=str(tmp_path / "other")).stderr
        platform.state.chmod(0o770)
        assert bema("status").returncode == 3, "others may write it"
        platform.state.chmod(0o700)
        if os.getuid() == 0:
            os.chown(platform.state, 12345, -1)
            assert bema("status").returncode == 3, "it is another user's"
            os.chown(platform.state, 0, -1)
        assert bema("status").returncode == 0
    finally:
        platform.close()
    assert bema("status").returncode == 3, "nothing runs there any more"


def test_what_is_wrong_is_one_line_and_exit_code_1(platform, tmp_path):
    (tmp_path / "file").touch()
    for changed, code in (
        ({"BEMA_STATE_DIR": str(tmp_path / "file" / "state")}, "state_unwritable"),
        ({"BEMA_GATEWAY__HOST": "0.0.0.0"}, "not_supported"),
        ({"BEMA_GATEWAY__PORT": "many"}, "bad_setting"),
    ):
        done = platform.bema("up", **changed)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert done.stderr.startswith(f"error {code}: ")
        assert "Traceback" not in done.stderr


def test_a_seed_that_is_not_there_is_refused(platform):
    done = platform.bema("up", "--seed", "nowhere.py")
    assert done.returncode == 1
    assert "nowhere.py" in done.stderr

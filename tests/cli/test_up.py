"""`bema up` as a user runs it, with the real platform behind it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
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


@pytest.mark.slow
def test_the_state_directory_may_be_a_link_of_ones_own(tmp_path):
    (tmp_path / "disk" / "state").mkdir(parents=True)
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / ".bema").symlink_to(tmp_path / "disk" / "state")
    platform = Up(tmp_path / "checkout" / ".bema")
    try:
        process = platform.start()
        assert process.stdout is not None
        assert "is up" in process.stdout.readline()
        assert "ok    state" in platform.bema("doctor").stdout
        del platform.env["BEMA_STATE_DIR"]  # found from the checkout
        assert json.loads(platform.bema("status", "--json").stdout)["pid"] == process.pid
        assert (tmp_path / "disk" / "state" / "up.json").exists()
    finally:
        platform.close()


PROGRAM = """\
import http.server, os, pathlib
notes = pathlib.Path.home() / "notes.txt"

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with notes.open("a") as file:
            file.write("note\\n")
        body = ("{answer} " + str(len(notes.read_text().splitlines()))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
"""


def asked(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def told(process: subprocess.Popen[str], *beginnings: str) -> list[str]:
    """The lines of its terminal, until one began with each."""
    assert process.stdout is not None
    lines: list[str] = []
    while not all(any(line.startswith(each) for line in lines) for each in beginnings):
        line = process.stdout.readline()
        assert line, (lines, process.stderr and process.stderr.read())
        lines.append(line.rstrip("\n"))
    return lines


def url_of(lines: list[str], name: str) -> str:
    return next(line for line in lines if line.startswith(f"{name}: ready")).split()[2].rstrip(",")


def stopped(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


@pytest.mark.slow
def test_seeds_are_what_their_files_are_at_each_start(platform, tmp_path):
    one, two, three = (tmp_path / f"{name}.py" for name in ("one", "two", "three"))
    for file in (one, two, three):
        file.write_text(PROGRAM.format(answer=f"first {file.stem}"))
    seeds = [part for file in (one, two, three) for part in ("--seed", str(file))]
    process = platform.start(*seeds)
    lines = told(process, "one: ready", "two: ready", "three: ready")
    assert asked(url_of(lines, "one")) == "first one 1"
    assert platform.bema("rm", "three").returncode == 0
    stopped(process)

    one.write_text(PROGRAM.format(answer="second one"))
    two.write_text("def (")
    process = platform.start(*seeds)
    lines = told(process, "one: ready", "two: refused", "two: ready", "three: ")
    assert any(line.startswith("one: ready") and "replaced by v2 since the file was edited" in line for line in lines)
    assert any("two: refused, it runs on as it was deployed: syntax_error" in line for line in lines)
    assert "three: not deployed, since it was removed" in lines
    assert asked(url_of(lines, "one")) == "second one 2", "it finds what the version before it wrote"
    assert asked(url_of(lines, "two")) == "first two 1"
    stopped(process)

    process = platform.start("--seed", str(one))
    assert "two: deployed by an earlier seed, and left as it is" in told(process, "one: ready", "two: ")


@pytest.mark.slow
def test_what_a_function_wrote_outlives_it(platform, tmp_path):
    file = tmp_path / "notes.py"
    file.write_text(PROGRAM.format(answer="old"))
    told(platform.start(), "bema ")
    url = platform.bema("deploy", str(file)).stdout.strip()
    assert [asked(url), asked(url)] == ["old 1", "old 2"]
    file.write_text(PROGRAM.format(answer="new"))
    taken = platform.bema("deploy", str(file), "--new")
    assert "error name_taken" in taken.stderr
    assert "which keeps what it wrote" in taken.stderr
    assert "is kept for the next of that name" in platform.bema("rm", "notes").stderr
    [kept] = json.loads(platform.bema("ls", "--kept", "--json").stdout)
    assert kept["name"] == "notes"
    url = platform.bema("deploy", str(file)).stdout.strip()
    assert asked(url) == "new 3"
    assert platform.bema("rm", "notes", "--purge").returncode == 0
    until(lambda: not (platform.state / "homes" / kept["id"]).exists())
    assert asked(platform.bema("deploy", str(file)).stdout.strip()) == "new 1"


@pytest.mark.slow
def test_what_failed_to_start_is_replaced_by_what_is_mended(platform, tmp_path):
    file = tmp_path / "mended.py"
    file.write_text("raise SystemExit('no water')\n")
    told(platform.start(), "bema ")
    failed = platform.bema("deploy", str(file))
    assert failed.returncode == 4
    assert "no water" in failed.stderr
    assert "mended: mended never listened" in platform.bema("ls").stdout
    file.write_text(PROGRAM.format(answer="mended"))
    done = platform.bema("deploy", str(file))
    assert done.returncode == 0, done.stderr
    assert asked(done.stdout.strip()) == "mended 1"

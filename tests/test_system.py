"""What `bema up` refuses before anything is started, and what it makes."""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bema import system
from bema.core import settings
from bema.core.errors import Refused
from bema.core.limits import DEFAULTS
from bema.deploy.ports import PublicListener
from bema.runtime.discovery.discovery import DiscoveryFactory
from bema.runtime.discovery.memory import MemoryDiscovery


def given(**env: str) -> settings.Settings:
    return settings.read(env, {})


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def opened():
    found: list[int] = []
    yield found.append
    for descriptor in found:
        os.close(descriptor)


def test_the_state_is_for_its_user_alone(state):
    system.prepare_state(state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert (state / "run").is_dir()


def test_a_state_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused) as refused:
        system.prepare_state(tmp_path / "file" / "state")
    assert refused.value.code == "state_unwritable"


def test_only_one_holds_the_lock(state, opened):
    system.prepare_state(state)
    assert not system.is_up(state)
    opened(system.take_lock(state))
    assert system.is_up(state)
    (state / "up.json").write_text(json.dumps({"pid": 42, "gateway": "http://127.0.0.1:8700"}))
    with pytest.raises(Refused, match=r"another `bema up` \(process 42, http://127.0.0.1:8700\) holds") as refused:
        system.take_lock(state)
    assert refused.value.code == "already_up"


@pytest.mark.parametrize(
    "flock", [lambda *_: None, lambda *_: (_ for _ in ()).throw(OSError(95, "Operation not supported"))]
)
def test_a_file_system_whose_flock_does_not_work_is_refused(state, monkeypatch, flock):
    system.prepare_state(state)
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(Refused) as refused:
        system.take_lock(state)
    assert refused.value.code == "no_flock"


def test_the_token_is_made_once_and_read_by_its_user_alone(state):
    state.mkdir()
    path = system.make_token(state)
    token = path.read_text()
    path.chmod(0o644)
    assert system.make_token(state).read_text() == token
    assert (len(token.strip()), stat.S_IMODE(path.stat().st_mode)) == (43, 0o600)
    assert [file.name for file in state.iterdir()] == ["token"]


def test_an_empty_token_is_none(state):
    state.mkdir()
    (state / "token").touch()
    assert len(system.make_token(state).read_text().strip()) == 43


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_are_refused_in_a_sentence(monkeypatch, platform):
    monkeypatch.setattr("sys.platform", platform)
    with pytest.raises(Refused, match=f"needs Linux, and this is {platform}"):
        system.check_machine()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(system, "_NEEDED", ("json", "not_there", "nor_there"))
    with pytest.raises(Refused, match="needs not_there, nor_there") as refused:
        system.check_machine()
    assert "bema[platform]" in refused.value.fix


def test_a_discovery_that_one_process_alone_sees_is_refused(monkeypatch):
    monkeypatch.setenv("BEMA_DISCOVERY", "memory")
    with pytest.raises(Refused, match="the discovery 'memory' is seen by one process alone") as refused:
        system.check_discovery(given())
    assert refused.value.code == "bad_setting"


def test_any_other_discovery_is_looked_at_before_anything_is_started(state):
    class Away(MemoryDiscovery):
        spans_processes = True

        async def view(self, *where):
            raise Refused("the meeting place is away", code="state_unwritable")

    system.check_discovery(given())
    with DiscoveryFactory.override("flock", Away), pytest.raises(Refused, match="is away"):
        system.check_discovery(given())


def test_a_state_of_a_newer_bema_is_refused_before_anything_is_started(state):
    system.prepare_state(state)
    with contextlib.closing(sqlite3.connect(state / "store.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    command = [sys.executable, "-m", "bema", "up"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error store_newer: the store ")
    assert done.stdout == ""
    assert not (state / "logs").exists()


def test_the_keeper_is_told_everything(state, monkeypatch):
    state.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as data, socket.create_server(("127.0.0.1", 0)) as control:
        config = system.hand_over(
            given(BEMA_STATE_DIR=str(state), BEMA_LIMITS__START="2"),
            (Path("seed.py"),),
            state=state,
            lock=3,
            token=state / "token",
            data=PublicListener(data, "http://127.0.0.1:1"),
            control=PublicListener(control, "http://127.0.0.1:2"),
        )
        orchestrator, gateway, jobs = config["children"]
        assert gateway["listen_fds"] == {"data": data.fileno(), "control": control.fileno()}
    assert json.loads(json.dumps(config)) == config
    assert (orchestrator["link"], gateway["link"]) == (True, False)
    told = orchestrator["init"]["settings"]
    # the first who connects starts it, and it ends after the instances
    assert (jobs["on_demand"], jobs["outlives"], jobs["listen"]) == (True, True, told["jobs"]["address"])
    assert jobs["init"]["auth_token"] == told["jobs"]["token"]
    for child in (orchestrator, gateway, jobs):
        assert child["env"]["BEMA_SETTINGS_DIR"] == str(Path.cwd()), "it works elsewhere, and reads the same settings"
    assert (told["limits.start"], told["seeds"], told["gateway_url"]) == (
        2,
        [str(Path("seed.py").absolute())],
        "http://127.0.0.1:1",
    )
    assert config["start"] == 30.0
    assert f"BEMA_STATE_DIR={state}" in config["banner"]


def test_the_box_has_lines_that_can_be_pasted(state, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    box = system.banner(state, state / "token", "http://127.0.0.1:1", "http://127.0.0.1:2").splitlines()
    assert "  docs     http://127.0.0.1:2/docs" in box
    ours = Path(sys.executable).with_name("bema")
    tried = box[box.index("try") + 1 :]
    assert tried == [f"  BEMA_STATE_DIR={state} {ours} {what}" for what in ("ls", "new hello", "deploy hello.py")]
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "curl" else None)
    assert "curl -H" in system.banner(state, state / "token", "http://127.0.0.1:1", "http://127.0.0.1:2")


def test_the_processes_of_a_platform_look_for_no_other(tmp_path, monkeypatch):
    monkeypatch.delenv("BEMA_STATE_DIR")
    monkeypatch.chdir(tmp_path)
    assert system._child("gateway", "bema.gateway", tmp_path / "state", TOLD, DEFAULTS)["env"]["BEMA_STATE_DIR"] == ""
    monkeypatch.setenv("BEMA_STATE_DIR", "state")
    child = system._child("gateway", "bema.gateway", tmp_path / "state", TOLD, DEFAULTS)
    assert child["env"]["BEMA_STATE_DIR"] == str(tmp_path / "state")


TOLD = {"api_url": "http://127.0.0.1:2", "limits.drain": 1.0}


def test_what_the_files_say_of_limits_reaches_every_process_before_its_init(state):
    with socket.create_server(("127.0.0.1", 0)) as bound:
        listener = PublicListener(bound, "http://127.0.0.1:1")
        held = settings.read(
            {"BEMA_STATE_DIR": str(state)}, {"bema.toml": "[limits]\nhandshake = 3\nchannel_line = 20000\n"}
        )
        config = system.hand_over(held, (), state=state, lock=3, token=state / "t", data=listener, control=listener)
    for child in config["children"]:
        assert settings.read(child["env"], {}).limits == held.limits
    assert config["line"] == 20_000

"""Instances forked by a zygote, in a keeper's hands: what is the same as in one that was started anew, and what fails well."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import bema.runner
from bema.core.naming import new_instance_id, show_instance_id
from tests.deploy.keeper.conftest import Platform, alive, until

RUNNER = str(Path(bema.runner.__file__).with_name("__main__.py"))
PATIENCE = 60.0
ENOUGH = 1 << 40

WAITS = """
import signal
print("null", flush=True)
signal.pause()
"""
LOOKS = """
import gc, json, os, random, resource, signal, sys, tempfile, threading, uuid
from pathlib import Path
import packet

def kind(number):
    return os.readlink(f"/proc/self/fd/{number}").partition(":")[0]

held = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
found = json.dumps({
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "flags": list(sys.flags), "executable": sys.executable,
    "main": sorted(vars(sys.modules["__main__"])), "file": __file__, "name": __name__,
    "environ": {name: value for name, value in os.environ.items() if name not in ("BEMA_INSTANCE", "PORT")},
    "cwd": os.getcwd(), "umask": os.umask(0o22), "temporary": tempfile.gettempdir(),
    "handlers": {number: str(signal.getsignal(number)) for number in (1, 2, 10, 12, 13, 15, 17)},
    "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())), "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
    "leads": os.getsid(0) == os.getpgid(0) == os.getpid(), "threads": threading.active_count(),
    "streams": [kind(number) for number in (0, 1, 2)], "held": sorted(map(kind, held)),
    "collects": [gc.isenabled(), gc.get_threshold()], "command": open("/proc/self/cmdline").read(),
    "name_in_ps": open("/proc/self/comm").read(), "hooks": str(sys.excepthook),
})
chance = json.dumps([random.random(), uuid.uuid1().hex, packet.MADE])
Path(os.environ["TMPDIR"], str(os.getpid())).write_text(found + "\\n" + chance)
print(os.getpid(), flush=True)
signal.pause()
"""
LIES = """
import os
write = os.write
os.write = lambda number, data: write(number, data.replace(b'"warden": ', b'"warden": 1, "really": '))
"""


class Stage:
    """Scripts of one environment, whose packages lie in a folder of their own."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.packages = platform.folder / "packages"
        self.packages.mkdir()
        self.package("packet", "import os, random, uuid\nMADE = os.getpid()")
        (platform.folder / "scripts").mkdir()
        (platform.folder / "homes").mkdir()
        self.deployments: set[str] = set()

    def package(self, name: str, code: str) -> None:
        (self.packages / f"{name}.py").write_text(code)

    def ask(self, code: str = WAITS, key: str = "one", deployment: str = "d1", **more: Any) -> None:
        """Ask for a start, by a zygote where there is one."""
        self.lines = len(self.printed(deployment)) if deployment in self.deployments else 0
        self.deployments.add(deployment)
        self.deployment = deployment
        script = self.platform.folder / "scripts" / "main.py"
        script.write_text(code)
        self.number = new_instance_id()
        env = {"PATH": os.environ["PATH"], "TMPDIR": str(self.platform.folder / "homes")}
        init = {
            "instance": show_instance_id(self.number),
            "script": str(script),
            "entry": {"kind": "main", "name": ""},
            "platform": str(self.packages),
        }
        asked = {
            "id": self.number,
            "op": "spawn",
            "instance": self.number,
            "deployment": deployment,
            "name": "dummy",
            "version": "v1",
            "argv": [sys.executable, "-I", "-u", RUNNER],
            "env": env | more.pop("env", {}),
            "cwd": str(self.platform.folder),
            "init": init,
            "zygote": {"key": key, "env": env, "memory": more.pop("memory", ENOUGH)},
        }
        if secrets := more.pop("secrets", None):
            kept = os.memfd_create("secrets")
            os.write(kept, json.dumps(secrets).encode())
            self.platform.descriptors.send(self.number, "secrets_fd", kept)
            os.close(kept)
            asked["inherit"] = ["secrets_fd"]
        self.platform._link.sendall(json.dumps(asked).encode() + b"\n")

    def started(self) -> dict[str, Any]:
        """What became of what was asked for."""
        return dict(self.platform.answer(self.number)["ok"])

    def start(self, code: str = WAITS, **how: Any) -> dict[str, Any]:
        self.ask(code, **how)
        return self.started()

    def runs(self) -> Any:
        """What the last one said first; its runner has told its imports by then."""
        said = until(lambda: self.printed(self.deployment)[self.lines :], PATIENCE)
        return said[0]

    def looked(self) -> list[Any]:
        """What the last one found, and what it threw."""
        return [
            json.loads(line) for line in (self.platform.folder / "homes" / str(self.runs())).read_text().splitlines()
        ]

    def serves(self) -> dict[str, str]:
        """Say of the last one that it was found to serve; how it was started."""
        said = self.platform.request("announced", instance=self.number, announce={"listen": ""})
        return dict(said["ok"]["start"])

    def zygote(self, key: str = "one") -> Any:
        listed = self.platform.request("list")["ok"]["zygotes"]
        return next(each for each in listed if each["key"] == key)

    def ready(self, key: str = "one") -> Any:
        """The zygote, as soon as it can fork."""
        return until(lambda: (found := self.zygote(key))["ready"] and found, PATIENCE)

    def zygote_for(self, code: str = WAITS, **how: Any) -> Any:
        """What a first instance that serves brings about."""
        self.start(code, **how)
        self.runs()
        self.serves()
        return self.ready(how.get("key", "one"))

    def hung_while_it_forks(self) -> int:
        """A zygote that was asked for a fork and does nothing."""
        pid = int(self.zygote_for()["pid"])
        os.kill(pid, signal.SIGSTOP)
        self.ask()
        assert self.zygote()["forking"] == 1
        return pid

    def printed(self, deployment: str = "d1") -> list[Any]:
        return [json.loads(line["event"]) for line in self.platform.log(deployment) if line["stream"] == "stdout"]


@pytest.fixture
def stage(platform: Platform) -> Stage:
    platform.ready()
    return Stage(platform)


def test_a_fork_finds_what_a_fresh_process_finds(stage):
    stage.zygote_for(LOOKS)
    first, _ = stage.looked()
    assert stage.start(LOOKS)["start"] == {"kind": "zygote"}
    assert stage.looked()[0] == first


def test_forks_share_what_was_imported_and_no_randomness(stage):
    zygote = stage.zygote_for(LOOKS)
    thrown = []
    for _ in range(2):
        stage.start(LOOKS)
        thrown.append(stage.looked()[1])
    (one, clock, packet), (other, later, same) = thrown
    assert packet == same == zygote["pid"]
    assert one != other
    assert clock != later


def test_a_fork_is_a_child_of_its_warden_and_that_of_the_keeper(stage):
    stage.zygote_for()
    pid = stage.start()["pid"]
    warden = _parent(pid)
    assert _parent(warden) == stage.platform.process.pid
    os.kill(warden, signal.SIGKILL)
    assert stage.platform.event("exited")["signal"] == signal.SIGKILL
    until(lambda: not alive(pid))


def test_all_that_a_fork_started_ends_with_it(stage):
    left = stage.platform.folder / "left"
    daemon = f"""
import os, signal, subprocess, sys
code = "import os, signal; os.setsid(); open('{left}', 'w').write(str(os.getpid())); signal.pause()"
if os.fork() == 0:
    subprocess.Popen([sys.executable, "-c", code], env={{}})
    os._exit(0)
os.wait()
signal.pause()
"""
    stage.zygote_for()
    assert stage.start(daemon)["start"] == {"kind": "zygote"}
    orphan = int(until(lambda: left.exists() and left.read_text(), PATIENCE))
    stage.platform.request("stop", instance=stage.number, grace_ms=20_000)
    assert stage.platform.event("exited")["stopped"]
    assert not alive(orphan)


def test_everything_ends_with_the_keeper(stage):
    zygote = stage.zygote_for()["pid"]
    pid = stage.start()["pid"]
    warden = _parent(pid)
    stage.platform.signal(signal.SIGKILL)
    until(lambda: not any(map(alive, (zygote, pid, warden))))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(999,), daemon=True).start()", "a thread"),
        ("import socket\nKEPT = socket.socket()", "a file or a socket"),
        ("import subprocess\nKEPT = subprocess.Popen(['sleep', '999'])", "a process"),
        ("import os\nos._exit(3)", "code 3"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
    ],
)
def test_what_an_import_may_not_do_is_left_out_and_the_rest_is_kept(stage, code, why):
    stage.package("harmful", code)
    # it stands there and is not imported, or the first instance would be gone
    zygote = stage.zygote_for("import packet\nif not packet:\n    import harmful\n" + WAITS)
    assert why in zygote["skipped"]["harmful"]
    assert stage.start(LOOKS)["start"] == {"kind": "zygote"}
    assert stage.looked()[0]["threads"] == 1


@pytest.mark.parametrize("code", ["raise RuntimeError", "import sys\nsys.exit(4)", "raise KeyboardInterrupt"])
def test_an_import_that_fails_is_the_script_s_own_affair(stage, code):
    stage.package("failing", code)
    zygote = stage.zygote_for("import packet\nif not packet:\n    import failing\n" + WAITS)
    assert zygote["skipped"] == {}
    assert stage.start()["start"] == {"kind": "zygote"}


def test_a_zygote_that_was_killed_is_made_again_on_need(stage):
    killed = stage.zygote_for()["pid"]
    os.kill(killed, signal.SIGKILL)
    until(lambda: not stage.zygote()["ready"])
    assert stage.start()["start"] == {"kind": "exec", "why": "its zygote is being prepared"}
    stage.serves()
    assert stage.ready()["pid"] != killed
    assert stage.start()["start"] == {"kind": "zygote"}


def test_a_zygote_that_hangs_stops_nobody(stage):
    hung = stage.zygote_for()["pid"]
    os.kill(hung, signal.SIGSTOP)
    answer = stage.start()
    assert answer["start"] == {"kind": "exec", "why": "it did not fork within 3 s"}
    until(lambda: not alive(hung))
    stage.runs()


def test_a_zygote_that_is_killed_while_it_forks_costs_a_start_anew(stage):
    os.kill(stage.hung_while_it_forks(), signal.SIGKILL)
    assert stage.started()["start"] == {"kind": "exec", "why": "its zygote did not fork it"}
    stage.runs()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import errno, os\ndef fork():\n    raise OSError(errno.ENOMEM, 'no memory')\nos.fork = fork", "no memory"),
        (LIES, "a process that it has not forked"),
    ],
)
def test_what_a_zygote_cannot_fork_is_started_anew(stage, code, why):
    stage.package("meddling", code)
    stage.zygote_for("import packet\nif not packet:\n    import meddling\n" + WAITS)
    answer = stage.start()
    assert answer["start"]["kind"] == "exec"
    assert why in answer["start"]["why"]
    stage.runs()


def test_a_zygote_without_descriptors_is_not_waited_for(stage):
    zygote = stage.zygote_for()["pid"]
    resource.prlimit(zygote, resource.RLIMIT_NOFILE, (8, 8))
    assert stage.start()["start"] == {"kind": "exec", "why": "its zygote did not fork it"}
    stage.runs()
    assert alive(zygote)


@pytest.mark.parametrize("how", ["env", "secrets"])
def test_a_variable_that_was_read_by_an_import_asks_for_a_start_anew(stage, how):
    stage.package("coloured", "import os\nCOLOUR = os.environ.get('COLOUR')")
    code = "import coloured, json\nprint(json.dumps(coloured.COLOUR), flush=True)\n" + WAITS
    stage.zygote_for(code)
    stage.start(code, **{how: {"COLOUR": "red"}})
    assert stage.runs() == "red"
    assert stage.serves() == {"kind": "exec", "why": "its packages read COLOUR while they are imported"}


def test_a_fork_is_given_its_secrets_and_its_brothers_are_not(stage):
    code = "import json, os\nprint(json.dumps(os.environ.get('WORD')), flush=True)\n" + WAITS
    stage.zygote_for(code)
    for given in ({"WORD": "hush"}, None):
        assert stage.start(code, secrets=given)["start"] == {"kind": "zygote"}
        assert stage.runs() == (given or {}).get("WORD")


def test_a_file_beside_the_script_comes_before_an_installed_one(stage):
    code = "import packet, json\nprint(json.dumps(packet.__file__), flush=True)\n" + WAITS
    stage.zygote_for(code)
    own = stage.platform.folder / "scripts" / "packet.py"
    own.write_text("")
    stage.start(code)
    assert stage.runs() == str(own)
    assert "packet.py stands beside the script" in stage.serves()["why"]


def test_no_zygote_is_kept_beyond_the_memory_for_all(stage):
    first = stage.zygote_for(key="one", deployment="d1")
    stage.zygote_for(key="two", deployment="d2", memory=int(first["memory"] * 1.5))
    until(lambda: not alive(first["pid"]))
    assert stage.start(key="one")["start"]["why"] == "its zygote is being prepared"
    assert stage.start(key="two", deployment="d2", memory=ENOUGH)["start"] == {"kind": "zygote"}


def test_a_zygote_that_is_too_large_for_all_of_it_is_not_kept(stage):
    stage.start(memory=1)
    stage.runs()
    stage.serves()
    until(lambda: stage.zygote()["refused"], PATIENCE)
    assert "of 1 that all may take" in stage.start(memory=1)["start"]["why"]


def test_a_zygote_ends_with_the_last_deployment_that_uses_it(stage):
    pid = stage.zygote_for()["pid"]
    stage.start(deployment="d2")
    stage.platform.request("forget", deployment="d1")
    assert alive(pid)
    stage.platform.request("forget", deployment="d2")
    until(lambda: not alive(pid))


def test_what_is_imported_for_the_first_time_at_work_is_in_the_next_zygote(stage):
    stage.package("late", "")
    ends = WAITS.replace("signal.pause()", "signal.sigwait([signal.SIGUSR1])\n__import__('la' + 'te')")
    first = stage.zygote_for()
    pid = stage.start("import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n" + ends)["pid"]
    stage.runs()
    stage.serves()
    os.kill(pid, signal.SIGUSR1)
    stage.platform.event("exited")
    following = until(lambda: (found := stage.ready())["pid"] != first["pid"] and found, PATIENCE)
    assert following["modules"] > first["modules"]


def test_what_was_being_forked_for_an_orchestrator_that_died_is_ended(stage):
    hung = stage.hung_while_it_forks()
    stage.platform.replace_orchestrator()
    before = stage.platform.request("list")["ok"]["instances"]
    os.kill(hung, signal.SIGCONT)
    end = stage.platform.event("exited")
    assert (end["instance"], end["stopped"]) == (stage.number, True)
    assert stage.platform.request("list")["ok"]["instances"] == before


def test_one_that_is_asked_to_stop_while_it_is_forked_stops(stage):
    hung = stage.hung_while_it_forks()
    stage.platform.request("stop", instance=stage.number, grace_ms=0)
    os.kill(hung, signal.SIGCONT)
    assert stage.started()["start"] == {"kind": "zygote"}
    assert stage.platform.event("exited")["stopped"]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

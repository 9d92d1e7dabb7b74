"""The sandbox as an instance enters it: what holds afterwards, for itself and for all that it starts."""

from __future__ import annotations

import json
import os
import pwd
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import landlockpy
import pytest

import bema.runner
from bema.runner import sandbox
from tests.runner.conftest import Launch

FOLDER = Path(bema.runner.__file__).parent
FULL = landlockpy.abi_version() >= 6
needs_landlock = pytest.mark.skipif(not landlockpy.supported(), reason="the kernel has no Landlock")
LIMITS = {"memory": 1 << 30, "processes": 64, "files": 256, "file": 1 << 20}


def wanted(home: Path, kind: str = "standard", **changes: Any) -> dict[str, Any]:
    given = {
        "kind": kind,
        "level": sandbox.level(),
        "read": [],
        "write": [str(home)],
        "withheld": [],
        "connect": None,
        "system_calls": kind == "strict",
        "limits": LIMITS,
    }
    return {**given, **changes}


class Inside:
    """Runs code in a process that has entered: its own Python and a copy of the runner that everybody may read."""

    def __init__(self, home: Path, runner: Path, python: str, user: int | None) -> None:
        self.home, self._runner, self._python, self._user = home, runner, python, user

    def __call__(self, code: str, before: str = "", **how: Any) -> subprocess.CompletedProcess[str]:
        program = before + ENTER + code
        return subprocess.run(
            [self._python, "-I", "-c", program, str(self._runner), json.dumps(wanted(self.home, **how))],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self.home,
            user=self._user,
            extra_groups=None if self._user is None else (),
            stdin=subprocess.DEVNULL,
        )

    def says(self, code: str, **how: Any) -> str:
        done = self(code, **how)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


ENTER = """
import importlib.util, json, sys
name, folder = "bema_runner", sys.argv[1]
spec = importlib.util.spec_from_file_location(name, folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules[name] = importlib.util.module_from_spec(spec)
from bema_runner import sandbox
entered = sandbox.enter(json.loads(sys.argv[2]))
"""


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path, FOLDER, sys.executable, None)


@pytest.fixture
def ordinary(inside: Inside) -> Iterator[Inside]:
    """As an ordinary user, whom the kernel bounds: where root tests, one who may read neither checkout nor environment."""
    if os.geteuid() != 0:
        yield inside
        return
    # the one of the tests may lie where nobody else looks
    if (python := shutil.which("python3", path="/usr/bin:/usr/local/bin")) is None:
        pytest.skip("no python3 for everybody: apt install python3")
    folder = Path("/tmp") / f"bema-nobody-{os.getpid()}"
    home = folder / "home"
    home.mkdir(parents=True)
    user = pwd.getpwnam("nobody").pw_uid
    try:
        shutil.copytree(FOLDER, folder / "runner", ignore=shutil.ignore_patterns("__pycache__"))
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        os.chown(home, user, -1)
        yield Inside(home, folder / "runner", python, user)
    finally:
        shutil.rmtree(folder)


def test_the_level_is_that_of_the_kernel():
    known = landlockpy.abi_version()
    filtered = os.uname().machine in ("x86_64", "aarch64")
    expected = "basic" if not known else "files" if known < 4 or not filtered else "network" if known < 6 else "full"
    assert sandbox.level() == expected
    assert any(phrase.startswith("memory and processors") for phrase in sandbox.missing())


def test_what_was_entered_is_told(inside):
    told = json.loads(inside.says("print(json.dumps(entered))"))
    assert told == {"kind": "standard", "level": sandbox.level(), "missing": sandbox.missing()}


def test_nothing_gives_it_privileges_and_none_are_left(inside):
    status = dict(line.split(":\t") for line in inside.says("print(open('/proc/self/status').read())").splitlines())
    assert status["NoNewPrivs"] == "1"
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapAmb"), 0
    )


def test_limits_are_lowered_for_good(inside):
    said = inside.says(
        "import resource as r\n"
        "print([r.getrlimit(k)[1] for k in (r.RLIMIT_DATA, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_CORE)])\n"
        "try:\n    r.setrlimit(r.RLIMIT_DATA, (-1, -1))\nexcept ValueError:\n    print('stays')\n"
    )
    assert said.splitlines() == [str([1 << 30, 1 << 20, 256, 0]), "stays"]


def test_a_limit_is_never_above_the_one_that_was_there(inside):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    said = inside.says(
        "import resource\nprint(resource.getrlimit(resource.RLIMIT_NOFILE))", limits={"files": most + 1000}
    )
    assert said == str(resource.getrlimit(resource.RLIMIT_NOFILE))


def test_memory_beyond_its_own_is_refused_and_the_process_goes_on(inside):
    said = inside.says("try:\n    bytearray(2 << 30)\nexcept MemoryError:\n    print(len(bytearray(100 << 20)))")
    assert said == str(100 << 20)


def test_a_file_ends_where_its_quota_does(inside):
    said = inside.says(
        "import errno\n"
        "try:\n    open('large', 'wb').write(bytes(2 << 20))\nexcept OSError as error:\n    print(errno.errorcode[error.errno])"
    )
    assert said == "EFBIG"


@needs_landlock
def test_it_writes_its_own_folders_and_reads_what_a_program_needs(inside, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "file"
    other.write_text("secret")
    said = inside.says(
        f"OTHER = {str(other)!r}\n"
        "import json, ssl, socket, subprocess, multiprocessing, tempfile\n"
        "open('kept', 'w').write('mine')\n"
        "ssl.create_default_context()\n"
        "socket.getaddrinfo('localhost', 80)\n"
        "multiprocessing.Lock()\n"
        "subprocess.run(['/bin/sh', '-c', 'cat kept > /dev/null'], check=True)\n"
        "for how in ('r', 'a'):\n"
        "    try:\n        open(OTHER, how)\n    except PermissionError:\n        print('no')\n"
    )
    assert said.split() == ["no", "no"]


@needs_landlock
def test_a_package_that_is_installed_for_editing_is_imported(inside, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout") / "edited"
    folder.mkdir()
    (folder / "__init__.py").write_text("word = 'edited'")
    # as setuptools leaves it in an environment, where a `.pth` file imports it at the start
    finder = f"""
import importlib.util, sys, types
finder = sys.modules["__editable___edited_1_0_finder"] = types.ModuleType("finder")
finder.MAPPING = {{"edited": {str(folder)!r}}}
class Finder:
    def find_spec(name, path=None, target=None):
        if name in finder.MAPPING:
            return importlib.util.spec_from_file_location(name, finder.MAPPING[name] + "/__init__.py")
sys.meta_path.append(Finder)
"""
    said = inside.says("import edited\nprint(edited.word)", before=finder)
    assert said == "edited"


@needs_landlock
def test_what_is_withheld_is_not_read_though_it_lies_in_what_is(inside, tmp_path_factory):
    checkout = tmp_path_factory.mktemp("checkout")
    state = checkout / ".bema"
    for name in ("token", "versions/one/script.py", "versions/two/script.py"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text(name)
    (checkout / "package.py").write_text("word = 'imported'")
    (checkout / "leads").symlink_to(state / "token")
    said = inside.says(
        f"CHECKOUT = {str(checkout)!r}\n"
        "sys.path.append(CHECKOUT)\nimport package\nprint(package.word)\n"
        "print(open(CHECKOUT + '/.bema/versions/one/script.py').read())\n"
        "for name in ('.bema/token', '.bema/versions/two/script.py', 'leads'):\n"
        "    try:\n        print(open(f'{CHECKOUT}/{name}').read())\n    except PermissionError:\n        print('no')\n",
        read=[str(checkout), str(state / "versions" / "one")],
        withheld=[str(state)],
    )
    assert said.splitlines() == ["imported", "versions/one/script.py", "no", "no", "no"]


@pytest.mark.skipif(not FULL, reason="before Linux 6.12")
def test_a_fork_of_who_has_entered_may_enter_again_and_both_hold(inside, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    said = inside.says(
        "import os\n"
        "again = json.loads(sys.argv[2])\n"
        "home = again['write'][0]\n"
        "if not os.fork():\n"
        "    sandbox.enter({**again, 'write': [home + '/a'], 'kind': 'strict', 'system_calls': True})\n"
        "    for name in 'ab':\n"
        "        try:\n            open(f'{home}/{name}/x', 'w')\n            print(name, 'yes', flush=True)\n"
        "        except PermissionError:\n            print(name, 'no', flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "open(home + '/b/x', 'w')\n"
    )
    assert said.splitlines() == ["a yes", "b no"]


def test_a_process_with_threads_does_not_enter(inside, tmp_path):
    program = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n" + ENTER
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(FOLDER), json.dumps(wanted(tmp_path))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "several threads" in done.stderr


@pytest.mark.skipif(sandbox.level() == "full", reason="this kernel has all levels")
def test_less_than_its_launcher_found_is_not_entered(inside):
    done = inside("print('ran')", level="full")
    assert (done.returncode, done.stdout) == (1, "")
    assert "isolation is 'full'" in done.stderr


def test_a_fork_bomb_ends_at_the_number_of_processes(ordinary):
    most, started, refused = ordinary.says(FORK_BOMB).split()
    assert 0 < int(started) < int(most)
    assert refused == "EAGAIN"


FORK_BOMB = """
import errno, os, resource, signal
children = []
most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
try:
    while len(children) <= most:
        pid = os.fork()
        if not pid:
            signal.pause()
        children.append(pid)
except OSError as error:
    print(most, len(children), errno.errorcode[error.errno], flush=True)
finally:
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
"""


def test_an_ordinary_user_enters_as_root_does(ordinary):
    assert json.loads(ordinary.says("print(json.dumps(entered))"))["level"] == sandbox.level()
    done = ordinary("open('/etc/shadow')")
    assert "PermissionError" in done.stderr


# by the runner, before a line of the script

SHOWS = """
import json, os

async def app(scope, receive, send):
    if scope["type"] == "http":
        try:
            found = os.listdir(os.path.dirname(os.path.dirname(__file__)))
        except PermissionError:
            found = []
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(found).encode()})
"""


@needs_landlock
def test_the_runner_enters_before_the_script_is_imported(launch: Launch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    given = wanted(home, read=[str(tmp_path / "script")], limits={})
    running = launch(SHOWS, sandbox=given).serving()
    assert running.get("/").json() == []
    assert running.stop() == 0


@needs_landlock
def test_who_reads_of_a_file_that_is_withheld_is_told_by_whom(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "data.csv").write_text("1,2")
    code = f"open({str(tmp_path / 'data.csv')!r})"
    given = wanted(tmp_path / "home", read=[str(tmp_path / "script")], limits={})
    ended, _, err = launch(code, "main", "__main__", sandbox=given).start().ended()
    assert ended == 1
    assert "PermissionError" in err
    assert "isolation 'standard' withholds files" in err.splitlines()[-1]


def test_a_failure_of_another_kind_is_not_explained_by_it(launch: Launch, tmp_path: Path) -> None:
    running = launch("open('/not/there')", "main", "__main__", sandbox=wanted(tmp_path, limits={})).start()
    err = running.ended()[2]
    assert "FileNotFoundError" in err
    assert "isolation" not in err


def test_what_cannot_be_entered_runs_nothing(launch: Launch, tmp_path: Path) -> None:
    given = wanted(tmp_path, limits={"files": -5})
    running = launch("print('ran', flush=True)", "main", "__main__", sandbox=given).start()
    code, out, err = running.ended()
    assert (code, out) == (1, "")
    assert err.startswith("bema: not started: the sandbox cannot be entered")

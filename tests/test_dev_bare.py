"""The bare machine: what it refuses, what it is told, and, where we are root, real namespaces over this system's own root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import dev
from tests.stories.harness import alive, until
from tests.tools import tool
from tools import bare, registries

ROOT = Path(__file__).parents[1]


def may_enter() -> bool:
    unshare = ["unshare", "--mount", "--pid", "--fork", "true"]
    return os.geteuid() == 0 and bool(shutil.which("unshare")) and subprocess.run(unshare, check=False).returncode == 0


needs_root = pytest.mark.skipif(not may_enter(), reason="mounts and namespaces need root")


# what is refused


def test_a_verb_that_is_none_is_answered_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as stopped:
        dev.bare(["soak"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "error: name one of: up, test\n  fix: python3 dev.py bare up\n"


def test_where_it_cannot_be_made_it_says_why_and_the_exit_code_is_3(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as stopped:
        bare.bare(tmp_path, ["up"])
    assert stopped.value.code == 3
    said = capsys.readouterr().err
    assert said.startswith("error: the bare machine cannot be made: ")
    assert said.endswith("  fix: sudo python3 dev.py bare up\n")
    assert list(tmp_path.iterdir()) == []


def test_without_debootstrap_it_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bare, "SYSTEM_PATH", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        bare.made(tmp_path)
    assert stopped.value.code == 3
    assert "fix: sudo apt install debootstrap" in capsys.readouterr().err


# making it


@pytest.fixture
def debootstrap(monkeypatch, tmp_path):
    """A program of that name, in place of one that takes a minute: it writes what it was asked, and fails when told to."""
    program = tmp_path / "bin" / "debootstrap"
    program.parent.mkdir()
    program.write_text(
        textwrap.dedent("""\
        #!/bin/sh
        for folder in "$@"; do case "$folder" in /*) mkdir -p "$folder/etc" "$folder/var/cache/apt/archives";; esac; done
        echo "$@" >> "$(dirname "$0")/asked"
        if [ -e "$(dirname "$0")/broken" ]; then echo "E: no space left"; exit 1; fi
        """)
    )
    program.chmod(0o755)
    monkeypatch.setattr(bare, "SYSTEM_PATH", f"{program.parent}:/usr/bin:/bin")
    return program.parent


@needs_root
def test_it_is_made_of_the_packages_that_the_readme_asks_for_once(debootstrap, tmp_path):
    place = tmp_path / ".bare"
    place.mkdir()
    assert bare.made(place) == bare.made(place) == "machine"
    (asked,) = (debootstrap / "asked").read_text().splitlines()
    assert "--variant=minbase --include=python3.11,python3.11-venv,ca-certificates," in asked
    assert f" bookworm {place / 'machine'} http" in asked


@needs_root
def test_one_that_was_left_half_made_is_made_anew(debootstrap, tmp_path, capsys):
    place = tmp_path / ".bare"
    place.mkdir()
    (debootstrap / "broken").touch()
    with pytest.raises(SystemExit) as stopped:
        bare.made(place)
    assert stopped.value.code == 3
    assert "debootstrap ended with 1: E: no space left" in capsys.readouterr().err
    (place / "machine" / "half").touch()
    (debootstrap / "broken").unlink()
    bare.made(place)
    assert not (place / "machine" / "half").exists()
    assert len((debootstrap / "asked").read_text().splitlines()) == 2


@needs_root
def test_nothing_is_removed_where_something_is_mounted(tmp_path, capsys):
    folder, precious = tmp_path / "machine", tmp_path / "precious"
    (folder / "dev").mkdir(parents=True)
    precious.mkdir()
    (precious / "kept").touch()
    subprocess.run(["mount", "--bind", precious, folder / "dev"], check=True)
    try:
        with pytest.raises(SystemExit):
            bare.remove(folder)
        assert (precious / "kept").exists()
        assert f"fix: umount {folder / 'dev'}" in capsys.readouterr().err
    finally:
        subprocess.run(["umount", folder / "dev"], check=True)
    bare.remove(folder)
    assert not folder.exists()


def test_debian_comes_from_where_this_host_gets_it(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    assert bare.mirror(tmp_path) == bare.MIRROR
    (tmp_path / "sources.list.d" / "debian.sources").write_text("Types: deb\nURIs: http://near.example/debian\n")
    assert bare.mirror(tmp_path) == "http://near.example/debian"
    (tmp_path / "sources.list").write_text(
        "# deb http://old.example/debian bookworm main\n"
        "deb https://packages.example/apt stable main\n"
        "deb [signed-by=/k.gpg] http://nearer.example/debian/ bookworm main\n"
    )
    assert bare.mirror(tmp_path) == "http://nearer.example/debian"


def test_the_copy_is_what_git_shows_with_what_was_not_committed(tmp_path):
    checkout, copy = tmp_path / "checkout", tmp_path / "copy"
    checkout.mkdir()
    git = [tool("git"), "-c", "user.name=a", "-c", "user.email=a@b"]
    (checkout / ".gitignore").write_text(".venv/\n")
    for name in ("kept.py", "changed.py", "deleted.py"):
        (checkout / name).write_text("old")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], cwd=checkout, check=True)
    (checkout / "changed.py").write_text("new")
    (checkout / "deleted.py").unlink()
    (checkout / "added.py").write_text("new")
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "big").touch()
    bare.copy_checkout(checkout, copy)
    found = {str(path.relative_to(copy)): path.read_text() for path in copy.rglob("*") if path.is_file()}
    assert found == {".gitignore": ".venv/\n", "kept.py": "old", "changed.py": "new", "added.py": "new"}


# the registries


def test_only_what_tells_of_registries_is_passed_in():
    given = {
        "PIP_INDEX_URL": "https://pypi.example/simple",
        "UV_INDEX_CORP_PASSWORD": "x",
        "SSL_CERT_FILE": "/corp.pem",
        "https_proxy": "http://proxy:3128",
        "PIP_TARGET": "/elsewhere",
        "UV_CACHE_DIR": "/cache",
        "UV_PYTHON": "3.12",
        "BEMA_STATE_DIR": "/state",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    assert set(registries.variables(given)) == {
        "PIP_INDEX_URL",
        "UV_INDEX_CORP_PASSWORD",
        "SSL_CERT_FILE",
        "https_proxy",
    }


def test_the_folders_that_settings_name_come_along(tmp_path):
    wheels, more, secret = (tmp_path / name for name in ("wheels", "more", "secret"))
    for folder in (wheels, more, secret):
        folder.mkdir()
    home = tmp_path / "home"
    (home / ".config" / "pip").mkdir(parents=True)
    (home / ".config" / "pip" / "pip.conf").write_text(
        f"[global]\nextra-index-url = file://{more} https://pypi.example{secret}\nfind-links = /nowhere /etc\n"
    )
    found = registries.places({"HOME": str(home), "PIP_FIND_LINKS": str(wheels), "PATH": str(secret)})
    assert {wheels, more} <= set(found)
    assert not {secret, Path("/etc"), Path("/")} & set(found)
    other = tmp_path / "other"
    registries.give_to(other, {"HOME": str(home)})
    assert [str(path.relative_to(other)) for path in other.rglob("*.conf")] == [".config/pip/pip.conf"]


# inside


@pytest.fixture
def place(tmp_path):
    """The folders of a machine whose root is that of this system, below a layer that is forgotten."""
    with bare.fresh(tmp_path / "run"):
        (tmp_path / "run" / "home" / "bema").mkdir()
        bare.own(tmp_path / "run" / "home")
        yield tmp_path


@pytest.fixture
def enter(place):
    """Enters the machine as dev.py does, to run Python code there."""
    entered: list[subprocess.Popen[str]] = []

    def enter(code: str) -> subprocess.Popen[str]:
        command = ["/usr/bin/python3", "-uc", textwrap.dedent(code)]
        entering = (
            f"import sys\nfrom tools import bare\nsys.exit(bare.enter(bare.Path({str(place)!r}), '/', {command!r}))"
        )
        entered.append(
            subprocess.Popen(
                [sys.executable, "-c", entering],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return entered[-1]

    yield enter
    for process in entered:
        process.kill()
        process.communicate()


@needs_root
def test_an_ordinary_user_is_alone_in_it_and_nothing_is_left_when_it_ends(enter, place):
    marker = Path("/tmp") / f"bema-{os.getpid()}"
    marker.touch()
    try:
        process = enter(
            """
            import json, os, subprocess, sys
            open("/tmp/mine", "w").close()
            shm = os.stat("/dev/shm").st_mode & 0o7777
            subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            pids = [name for name in os.listdir("/proc") if name.isdecimal()]
            with open("/etc/hosts"), open("/dev/null", "w"), open("/dev/urandom", "rb"): pass
            os.close(os.openpty()[0])
            print(json.dumps([os.getuid(), os.getgroups(), os.getcwd(), sorted(os.environ), len(pids), shm,
                              os.listdir("/tmp"), os.access("/usr", os.W_OK)]))
            sys.exit(7)
            """,
        )
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 7, out
        uid, groups, folder, names, pids, shm, files, writable = json.loads(out)
        assert (uid, groups, folder, shm) == (1000, [], "/home/user/bema", 0o1777)
        assert pids == 3, "the first process, ours and the one we left"
        assert not {"CI", "PYTEST_CURRENT_TEST", "BEMA_STATE_DIR"} & set(names)
        assert files == ["mine"]
        assert not writable
    finally:
        marker.unlink()
    assert str(place) not in Path("/proc/self/mounts").read_text()
    assert not Path("/home/user/bema").exists()


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_command_once_and_its_exit_code_comes_back(enter, number):
    process = enter(
        """
        import os, signal, sys, time
        came = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: came.append(number))
        print("ready")
        while not came:
            time.sleep(0.01)
        time.sleep(0.3)  # for one that should not come
        sys.exit(40 + len(came))
        """,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 41


@needs_root
def test_when_dev_py_is_killed_all_that_ran_in_it_ends(enter):
    process = enter(
        """
        import os, subprocess, time
        subprocess.Popen(["setsid", "sleep", "1234"])
        print("ready")
        time.sleep(1234)
        """,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    inside = below(process.pid)
    assert len(inside) == 4, "who waits, the first process, the command, what that started"
    process.kill()
    process.communicate(timeout=30)
    until("all of the machine has ended", lambda: not any(map(alive, inside)))


def below(pid: int) -> list[int]:
    """The descendants of a process."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(grandchild for child in children for grandchild in below(child))]

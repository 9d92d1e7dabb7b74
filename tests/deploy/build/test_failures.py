"""A build that fails leaves nothing, says why, and may be tried again."""

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bema.core.errors import Failed
from bema.deploy.build.environments import UvEnvironments, Wanted
from bema.deploy.build.folders import MARKER, WORK, exclusive, remove_unfinished, working
from bema.deploy.build.pythons import own_python
from bema.deploy.build.uv import Uv
from tests import disks
from tests.deploy.build.projects import Project
from tests.deploy.build.test_environments import make, output, script
from tests.deploy.build.test_local import as_a_wheel

HUGE = 64 * 2**20


def left_in(folder: Path) -> list[Path]:
    """What is there besides file locks."""
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


def refused(folder: Path, wanted: Wanted, uv: Uv | None = None) -> Failed:
    with pytest.raises(Failed) as caught:
        asyncio.run(UvEnvironments(folder, uv or Uv()).make(wanted))
    assert caught.value.code == "build_failed"
    return caught.value


class FakeUv(Uv):
    """The real uv but for `sync`, of which it does the beginning and what `then` says, in sh."""

    def __init__(self, folder: Path, then: str) -> None:
        binary = folder / "uv"
        begun = f'mkdir -p "$VIRTUAL_ENV/lib" && echo half > "$VIRTUAL_ENV/lib/half.py"\n{then}'
        binary.write_text(f'#!/bin/sh\ncase " $* " in *" sync "*) {begun};; *) exec {Uv().binary} "$@";; esac\n')
        binary.chmod(0o755)
        super().__init__(str(binary))


def say(*lines: str) -> str:
    """Complain, and fail."""
    return "; ".join(f"echo '{line}' >&2" for line in lines) + "; exit 2"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds 40 MB and no more."""
    with disks.small_disk(tmp_path / "disk", 40) as disk:
        yield disk


def test_on_a_full_disk_it_says_so_and_leaves_the_room_that_there_was(small_disk: Path, tmp_path: Path):
    project = Project(tmp_path / "lib")
    (project.folder / "lib.py").write_text(f"says = 'large'\n# {'x' * HUGE}\n")
    wanted = as_a_wheel(project, tmp_path)
    error = refused(small_disk / "environments", wanted)
    assert "no space left on device" in error.message.lower()
    assert left_in(small_disk / "environments") == []
    assert sum(path.stat().st_size for path in small_disk.rglob("*") if path.is_file()) == 0
    subprocess.run(["mount", "-o", "remount,size=400m", small_disk], check=True)
    (made,) = make(small_disk / "environments", wanted)
    assert output(made, "import lib; print(lib.says)") == "large"


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ("kill -9 $$", "ended by SIGKILL"),
        ("kill -6 $$", "ended by SIGABRT"),
        ("exit 137", "ended by SIGKILL"),
        ("head -c 80000000 /dev/zero | tr '\\0' x >&2; " + say("", "error: at last"), "at last"),
        (
            "echo 'error: Failed to install: six'; echo '  cause: No space left on device (os error 28)'; exit 2) >&2",
            "",
        ),
        (
            "(echo 'error: it is late'; echo 'write: No space left on device') >&2; exit 2",
            "No space left on device: it",
        ),
        ("echo 'memory allocation of 5 bytes failed' >&2; kill -6 $$", "no memory left"),
        ("exit 3", "`uv sync` failed"),
        (say("error: " + "six" * 10_000), "sixsixsix"),
    ],
)
def test_however_it_ends_the_reason_is_true_and_the_half_is_gone(then: str, reason: str, tmp_path: Path):
    error = refused(tmp_path / "e", script("six"), FakeUv(tmp_path, then))
    assert reason in error.message
    assert len(error.message) < 2100
    assert left_in(tmp_path / "e") == []
    (made,) = make(tmp_path / "e", script("six"))
    assert output(made, "import six; print('whole')") == "whole"


def test_without_a_network_the_address_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    error = refused(tmp_path / "e", script("bema-is-on-no-index"))
    assert "127.0.0.1:9" in error.message
    assert left_in(tmp_path / "e") == []


def test_one_that_is_called_off_leaves_nothing(tmp_path: Path):
    async def story() -> None:
        uv = FakeUv(tmp_path, "touch begun; sleep 60")
        building = asyncio.create_task(UvEnvironments(tmp_path / "e", uv).make(script("six")))
        async with asyncio.timeout(30):
            while not list(tmp_path.glob("e/.lock-*/begun")):
                await asyncio.sleep(0.01)
        assert [path for path in left_in(tmp_path / "e") if not path.name.startswith(WORK)]
        building.cancel()
        await asyncio.gather(building, return_exceptions=True)

    asyncio.run(story())
    assert left_in(tmp_path / "e") == []


def test_dependencies_that_exhaust_the_resolver_are_ended_with_the_limit(tmp_path: Path):
    variables = ("os_name", "sys_platform", "platform_machine", "platform_system", "implementation_name")
    marker = " or ".join(f"{variables[n % 5]} == 'a{n}'" for n in range(150))
    wanted = script(f"six; {marker}")
    with pytest.raises(Failed, match="took more than 512 MiB of memory"):
        asyncio.run(UvEnvironments(tmp_path / "e", Uv(), memory=2**29).make(wanted))


KILLED = """
import asyncio, os, sys
from pathlib import Path
from bema.deploy.build.environments import UvEnvironments
from bema.deploy.build.uv import Uv
from tests.deploy.build.test_environments import script
asyncio.run(UvEnvironments(Path(sys.argv[1]), Uv(sys.argv[2])).make(script("six")))
"""


def test_what_a_builder_started_holds_its_folder(tmp_path: Path):
    work = tmp_path / f"{WORK}x"
    work.mkdir()
    descriptor = os.open(work, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    started = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,))
    os.close(descriptor)
    try:
        assert remove_unfinished(tmp_path) == []
    finally:
        started.kill()
        started.wait()
    assert remove_unfinished(tmp_path) == [work]


def test_what_a_killed_builder_left_is_removed_when_its_uv_has_ended_too(tmp_path: Path):
    folder = tmp_path / "e"
    uv = FakeUv(tmp_path, f"echo $$ > {tmp_path}/pid; touch begun; sleep 60")
    builder = subprocess.Popen([sys.executable, "-c", KILLED, folder, uv.binary], cwd=Path(__file__).parents[3])
    try:
        while not list(folder.glob(".lock-*/begun")):
            assert builder.poll() is None
    finally:
        builder.kill()
        builder.wait()
    half = left_in(folder)
    assert len(half) == 2
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int((tmp_path / "pid").read_text()), 9)
    gone: list[Path] = []
    while len(gone) < 2:
        gone += remove_unfinished(folder)
    assert (sorted(gone), left_in(folder)) == (sorted(half), [])


def test_what_is_whole_and_what_is_being_made_stays(tmp_path: Path):
    whole, half, left = (tmp_path / name for name in ("a" * 64, "b" * 64, f"{WORK}x"))
    for folder in (whole, half, left):
        folder.mkdir()
    (whole / MARKER).touch()

    async def story() -> None:
        async with exclusive(tmp_path / f"{half.name}.lock"), working(tmp_path) as (work, _):
            assert remove_unfinished(tmp_path) == [left]
            assert work.is_dir()
        assert not work.exists()
        assert remove_unfinished(tmp_path) == [half]

    asyncio.run(story())
    assert whole.is_dir()


def test_a_new_folder_is_not_taken_for_one_that_was_left(tmp_path: Path):
    async def story() -> None:
        over = threading.Event()

        def sweep() -> None:
            while not over.is_set():
                remove_unfinished(tmp_path)

        sweeping = asyncio.create_task(asyncio.to_thread(sweep))
        for _ in range(300):
            async with working(tmp_path) as (work, _):
                await asyncio.sleep(0.001)
                (work / "script.py").touch()
        over.set()
        await sweeping

    asyncio.run(story())


def test_a_folder_that_is_not_there_has_nothing_unfinished(tmp_path: Path):
    assert remove_unfinished(tmp_path / "none") == []


def test_a_build_sees_what_it_needs_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    secrets = (
        "BEMA_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "DATABASE_URL",
        "UV_PUBLISH_TOKEN",
        "SSH_AUTH_SOCK",
        "MY_PROXY_KEY",
    )
    needed = ("HTTPS_PROXY", "no_proxy", "SSL_CERT_FILE", "UV_INDEX_MINE_USERNAME", "PIP_INDEX_URL", "LC_ALL", "CFLAGS")
    given = {**dict.fromkeys(secrets, "not for you"), **{name: os.environ.get(name, "") for name in needed}}
    given |= {"LC_ALL": "C.UTF-8", "CFLAGS": "-O1", "UV_INDEX_MINE_USERNAME": "me", "no_proxy": "127.0.0.1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    project = Project(tmp_path / "lib")
    code = f"# /// script\n# dependencies = ['lib @ {project.folder.as_uri()}']\n# ///\n"
    (made,) = make(tmp_path / "e", Wanted(code.encode(), ("lib",), own_python()))
    saw = json.loads(output(made, "import json, lib_saw; print(json.dumps(lib_saw.environ))"))
    assert "not for you" not in str(saw)
    assert {name: saw.get(name) for name in needed} == {name: given[name] for name in needed}
    assert saw["PATH"].endswith(os.environ["PATH"])
    assert Path(saw["HOME"]).is_relative_to(tmp_path / "e")
    assert not Path(saw["HOME"]).exists()
    unexpected = {
        name for name in saw if not name.startswith(("UV_", "LC_", "PIP_", "PYTHON", "GIT_", "CARGO", "RUST"))
    }
    assert unexpected <= {
        *needed,
        *os.environ,
        "HOME",
        "UV",
        "NO_COLOR",
        "VIRTUAL_ENV",
        "XDG_CONFIG_HOME",
        "NETRC",
        "OLDPWD",
    }


def test_what_uv_keeps_in_the_users_home_is_found_from_a_builds_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home"
    (home / ".config" / "uv").mkdir(parents=True)
    project = Project(tmp_path / "lib", "bemalib")
    links = project.built("wheel", tmp_path / "links").parent
    (home / ".config" / "uv" / "uv.toml").write_text(f'find-links = ["{links}"]\n')
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "UV_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    (made,) = make(tmp_path / "e", script("bemalib"))
    assert output(made, "import bemalib; print(bemalib.says)") == "old"
    assert (home / ".cache" / "uv").is_dir()

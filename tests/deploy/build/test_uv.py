"""uv as a child: whatever it and its backends start ends with it, and with whoever asked for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bema.core.errors import Failed
from bema.deploy.build.uv import Uv
from bema.deploy.keeper.processes import processes

_UV = """#!{python}
# stands in for uv and its backends: leaves two with no environment, one of them holding its output, then does as it is told
import os, subprocess, sys, time
waits = [sys.executable, "-c", "import time; time.sleep(600)", {tag!r}]
subprocess.Popen(waits, env={{}}, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
if os.fork() == 0:
    os.setsid()
    os.execve(waits[0], waits, {{}})
open({tag!r}, "w").close()
if sys.argv[-1] == "build":
    time.sleep(600)
print("done")
"""


@pytest.fixture
def uv(tmp_path: Path) -> str:
    binary, tag = tmp_path / "uv", str(tmp_path / "tag")
    binary.write_text(_UV.format(python=sys.executable, tag=tag))
    binary.chmod(0o755)
    return str(binary)


def living(folder: Path) -> list[int]:
    """Who has a path in this folder on its command line."""
    return [pid for pid, words in _command_lines() if any(word.startswith(f"{folder}/") for word in words)]


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for process in processes():
        with contextlib.suppress(OSError):
            yield process.pid, Path(f"/proc/{process.pid}/cmdline").read_text(errors="replace").split("\0")


def until(so: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)


def test_what_it_leaves_behind_is_ended_before_its_answer(uv: str, tmp_path: Path) -> None:
    assert asyncio.run(Uv(uv).run("lock")) == "done\n"
    assert living(tmp_path) == []


def test_its_end_is_its_own_code_and_complaint(tmp_path: Path) -> None:
    for line, told in (("echo 'error: no' >&2; exit 3", "no"), ("kill -9 $$", "`uv lock` failed")):
        binary = tmp_path / "uv"
        binary.write_text(f"#!/bin/sh\n{line}\n")
        binary.chmod(0o755)
        with pytest.raises(Failed, match=told):
            asyncio.run(Uv(str(binary)).run("lock"))


@pytest.mark.parametrize("how", ["cancelled", "too long"])
def test_who_does_not_wait_for_it_any_more_leaves_nothing(uv: str, tmp_path: Path, how: str) -> None:
    async def story() -> None:
        build = asyncio.create_task(Uv(uv).run("build", timeout=60 if how == "cancelled" else 3))
        await asyncio.to_thread(until, (tmp_path / "tag").exists)
        if how == "cancelled":
            build.cancel()
        with pytest.raises((asyncio.CancelledError, Failed)):
            await build
        assert living(tmp_path) == []

    asyncio.run(story())


def test_however_early_it_is_given_up_it_leaves_nothing(uv: str, tmp_path: Path) -> None:
    async def story() -> None:
        for milliseconds in (0, 1, 2, 5, 10, 20, 30, 40, 60):
            build = asyncio.create_task(Uv(uv).run("build"))
            await asyncio.sleep(milliseconds / 1000)
            build.cancel()
            with pytest.raises(asyncio.CancelledError):
                await build
            assert living(tmp_path) == []

    asyncio.run(story())


def test_it_ends_with_whoever_asked_for_it(uv: str, tmp_path: Path) -> None:
    code = f"import asyncio; from bema.deploy.build.uv import Uv; asyncio.run(Uv({uv!r}).run('build'))"
    with subprocess.Popen([sys.executable, "-c", code]) as asking:
        until((tmp_path / "tag").exists)
        assert living(tmp_path) != []
        os.kill(asking.pid, signal.SIGKILL)
    until(lambda: living(tmp_path) == [], 5)

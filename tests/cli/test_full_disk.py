"""A full disk under the real platform: what cannot go on says why, and removing always works."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_up import PROGRAM, Up, asked, told
from tests.disks import fill, small_disk

pytestmark = pytest.mark.slow


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Up]:
    with small_disk(tmp_path / "disk", 80) as disk:
        platform = Up(disk / "state")
        yield platform
        platform.close()


def until_ls(platform: Up, text: str) -> str:
    deadline = time.monotonic() + 20
    while text not in (said := platform.bema("ls").stdout):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    return said


def test_what_fills_a_disk_can_be_removed_from_it(full: Up, tmp_path: Path):
    disk = full.state.parent
    told(full.start(), "bema ")
    urls = {}
    for name in ("one", "two", "three"):
        (file := tmp_path / f"{name}.py").write_text(PROGRAM.format(answer=name))
        urls[name] = full.bema("deploy", str(file)).stdout.strip()
        assert asked(urls[name]) == f"{name} 1"
    fill(disk)

    listed = json.loads(full.bema("ls", "--json").stdout)["deployments"]
    os.kill(next(each["instance"]["pid"] for each in listed if each["name"] == "one"), signal.SIGKILL)
    assert "database or disk is full" in until_ls(full, "one: the store")
    refused = full.bema("deploy", "--name", "four", str(tmp_path / "one.py"))
    assert refused.returncode == 1
    assert "Free some space on its disk" in refused.stderr

    # one that begins on a full disk has its reserve already
    pids = {each["name"]: each["pid"] for each in json.loads(full.bema("status", "--json").stdout)["processes"]}
    os.kill(pids["orchestrator"], signal.SIGKILL)
    until_ls(full, "two")
    for name in ("one", "two"):
        done = full.bema("rm", name)
        assert done.returncode == 0, done.stderr
        fill(disk)
    done = full.bema("rm", "three", "--purge")
    assert done.returncode == 0, done.stderr
    assert json.loads(full.bema("ls", "--json").stdout)["deployments"] == []
    assert {each["name"] for each in json.loads(full.bema("ls", "--kept", "--json").stdout)} == {"one", "two"}
    for name in ("one", "two"):
        assert full.bema("rm", name, "--purge").returncode == 0
    deadline = time.monotonic() + 40
    while any((full.state / "homes").iterdir()) or any((full.state / "logs").glob("*-*")):
        assert time.monotonic() < deadline, [*(full.state / "homes").iterdir(), *(full.state / "logs").iterdir()]
        time.sleep(0.1)

    (disk / "ballast").unlink()
    assert asked(full.bema("deploy", str(tmp_path / "one.py")).stdout.strip()) == "one 1"

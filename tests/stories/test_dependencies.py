"""What a script depends on on this machine, and what its builds see and leave."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests import disks
from tests.deploy.build.projects import Project
from tests.stories.harness import Platform

pytestmark = pytest.mark.slow

TELLING = """# /// script
# dependencies = ["lib @ URI"]
# ///
import json, lib, lib_saw

async def app(scope, receive, send):
    body = json.dumps({"says": lib.says, "saw": lib_saw.environ}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk", 100) as disk:
        yield disk


def answer(url: str) -> dict[str, object]:
    with httpx2.Client(timeout=40, trust_env=False) as client:
        told: dict[str, object] = json.loads(client.get(url).text)
    return told


def test_a_package_of_ones_own_that_changed_is_served_as_it_is_now(platform: Platform, tmp_path: Path) -> None:
    project = Project(tmp_path / "lib")
    code = TELLING.replace("URI", project.folder.as_uri())
    platform.env |= {"DATABASE_URL": "not for a build", "AWS_SECRET_ACCESS_KEY": "not for a build"}
    platform.up()
    first = answer(platform.deploy("first", code)["url"])
    assert first["says"] == "old"
    assert "not for a build" not in str(first["saw"])
    project.says("changed")
    assert answer(platform.deploy("second", code)["url"])["says"] == "changed"
    assert platform.stop() == 0


def test_a_package_with_a_newer_version_is_upgraded_and_left_again(platform: Platform, tmp_path: Path) -> None:
    project, links = Project(tmp_path / "lib"), tmp_path / "links"
    project.built("wheel", links)
    listed = f'# dependencies = ["lib"]\n# [tool.uv]\n# no-index = true\n# find-links = ["{links}"]'
    platform.up()
    url = platform.deploy("first", TELLING.replace('# dependencies = ["lib @ URI"]', listed))["url"]
    assert answer(url)["says"] == "old"
    (project.folder / "project.json").write_text('["lib", "2", []]')
    project.says("new")
    project.built("wheel", links)
    assert {"name": "lib", "locked": ["1"], "newest": ["2"]} in platform.json("outdated", "first")["first"]
    upgraded = platform.bema("deploy", "--upgrade", "first")
    assert upgraded.returncode == 0, upgraded.stderr
    assert "lib: 1 -> 2" in upgraded.stderr.splitlines()
    assert (upgraded.stdout.strip(), answer(url)["says"]) == (url, "new")
    again = platform.bema("deploy", "--upgrade", "first")
    assert (again.returncode, "first stays as it is" in again.stderr) == (0, True), again.stderr
    back = platform.bema("rollback", "first")
    assert back.returncode == 0, back.stderr
    assert answer(url)["says"] == "old"
    assert platform.stop() == 0


def test_a_build_that_fills_the_disk_says_so_and_stands_in_nobodys_way(small_disk: Path, tmp_path: Path) -> None:
    project = Project(tmp_path / "lib")
    (project.folder / "lib.py").write_text(f"says = 'large'\n# {'x' * 150 * 2**20}\n")
    code = TELLING.replace("URI", project.built("wheel", tmp_path / "built").as_uri())
    platform = Platform(small_disk / "state")
    try:
        platform.up()
        failed = platform.deploy("large", code, state="build_failed")
        assert "no space left on device" in failed["error"]["message"].lower()
        environments = small_disk / "state" / "environments"
        assert [path for path in environments.iterdir() if path.is_dir()] == []
        with platform.http() as api:
            assert api.delete(f"/faas/python/{failed['id']}").is_success
        platform.deploy("small", "async def app(scope, receive, send): ...\n")
        subprocess.run(["mount", "-o", "remount,size=900m", small_disk], check=True)
        assert answer(platform.deploy("large", code)["url"])["says"] == "large"
        assert platform.stop() == 0
    finally:
        platform.end()

"""The platform is made of parts too: another is taken by the settings of the folder where `bema up` was typed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import httpx2
import pytest

from tests.stories.harness import Platform

pytestmark = pytest.mark.slow


def test_a_platform_with_a_store_that_forgets(platform: Platform, script: Callable[[str], str]) -> None:
    (platform.state.parent / "bema.toml").write_text('[plugins.use]\n"bema.state" = "memory"\n')
    platform.up()
    deployed = platform.deploy("echo", script("hello"))
    assert httpx2.get(deployed["url"] + "/", trust_env=False).text.startswith("hello ")
    assert not list(platform.state.glob("store.sqlite*"))


def test_a_platform_that_could_not_meet_its_instances_is_refused(platform: Platform) -> None:
    platform.env["BEMA_DISCOVERY"] = "memory"
    done = platform.bema("up")
    assert done.returncode == 1
    assert "the discovery 'memory' is seen by one process alone, and `bema up` is several" in done.stderr
    assert not platform.state.exists()


SHELF = """
import os
from pathlib import Path
from bema.runtime.discovery.flock import FlockDiscovery

class Shelf(FlockDiscovery):
    def __init__(self, directory=None, **more):
        super().__init__(directory or Path(os.environ["SHELF"]), **more)
"""


def test_a_platform_that_meets_its_instances_in_a_discovery_of_somebody_else(
    platform: Platform, script: Callable[[str], str]
) -> None:
    installed, shelf = platform.state.parent / "installed", platform.state.parent / "shelf"
    info = installed / "acme_shelf-1.0.dist-info"
    info.mkdir(parents=True)
    (installed / "acme_shelf.py").write_text(SHELF)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-shelf\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bema.discovery.plugins]\nshelf = acme_shelf:Shelf\n")
    platform.env |= {"PYTHONPATH": str(installed), "BEMA_DISCOVERY": "shelf", "SHELF": str(shelf)}
    platform.up()
    deployed = platform.deploy("echo", script("hello"))
    assert httpx2.get(deployed["url"] + "/", trust_env=False).text.startswith("hello ")
    assert len(list(shelf.glob("*.json"))) == 3  # the orchestrator, the gateway and the instance
    assert not list(platform.state.glob("run/d/*.json"))
    os.kill(platform.system("orchestrator"), signal.SIGKILL)
    os.kill(deployed["instance"]["pid"], signal.SIGKILL)
    assert httpx2.get(deployed["url"] + "/", trust_env=False, timeout=30).text.startswith("hello ")

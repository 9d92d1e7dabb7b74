"""The platform is made of parts too: another is taken by the settings of the folder where `bema up` was typed."""

from __future__ import annotations

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
    assert "the discovery 'memory' is seen by one process alone" in done.stderr
    assert not platform.state.exists()

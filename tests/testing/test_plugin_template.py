"""The page on plugins and the template it starts from: built, installed, found, and held to the laws."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bema.parts.policy import read_policy
from tests.parts.conftest import ROOT, Machine

TEMPLATE = ROOT / "examples" / "plugin"
PAGE = (ROOT / "docs" / "plugins.md").read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


def test_the_template_is_built_installed_and_found(machine: Machine) -> None:
    package = machine.folder / "plugin"
    shutil.copytree(TEMPLATE, package)
    machine.uv("pip", "install", "-q", "--python", str(machine.python), "--no-deps", str(package))
    done = machine.run(
        """
        from bema.runtime.discovery.discovery import DiscoveryFactory
        assert not DiscoveryFactory.discover_plugins(strict=True).problems()
        from bema.core.settings import current
        print(DiscoveryFactory.names(), DiscoveryFactory.choose().__name__, DiscoveryFactory.open(current()).asked)
        """,
        prelude="",
        BEMA_DISCOVERY="counting",
        BEMA_DISCOVERY__FROM="5",
    )
    assert done.stdout.strip() == "['counting', 'flock', 'memory'] CountingDiscovery 5", done.stderr


def test_the_template_passes_its_own_tests(tmp_path: Path) -> None:
    shutil.copytree(TEMPLATE, tmp_path / "plugin")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path / "plugin",
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"src:{ROOT}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def test_the_pages_settings_are_settings() -> None:
    tables = [tomllib.loads(block) for block in blocks("toml")]
    (table,) = [table["plugins"] for table in tables if "plugins" in table]
    assert read_policy(table).mode == "allow"

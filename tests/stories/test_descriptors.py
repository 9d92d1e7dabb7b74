"""The platform's own processes may have all the descriptors that the system allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stories.harness import Platform

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["keeper", "orchestrator", "gateway"])
def test_a_process_of_the_platform_has_the_hard_limit(running: Platform, name: str) -> None:
    lines = Path(f"/proc/{running.system(name)}/limits").read_text().splitlines()
    soft, hard = next(line for line in lines if line.startswith("Max open files")).split()[3:5]
    assert soft == hard

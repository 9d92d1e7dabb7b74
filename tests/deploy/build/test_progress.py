"""What a build tells of itself while it works, and what is left out of its complaint."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import Failed
from bema.deploy.build.environments import UvEnvironments
from bema.deploy.build.progress import step_of
from bema.deploy.build.uv import Uv
from tests.deploy.build.test_environments import script


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("Downloading numpy (16.1MiB)", "downloading numpy (16.1MiB)"),
        (" Downloaded numpy", "downloaded numpy"),
        ("   Building shop @ file:///srv/shop", "building shop"),
        ("      Built shop @ file:///srv/shop", "built shop"),
        ("   Updating https://example.org/shop.git (main)", "fetching https://example.org/shop.git"),
        ("Resolved 3 packages in 816ms", "resolved 3 packages"),
        ("Installed 1 package in 66ms", "installed 1 package, compiling"),
        ("error: Downloading numpy (16.1MiB) failed", ""),
        ("  cause: Building is not allowed", ""),
        ("", ""),
    ],
)
def test_a_line_is_a_step_or_a_part_of_a_complaint(line, step):
    assert step_of(line) == step


@given(st.text())
def test_any_line_is_read(line):
    assert len(step_of(line)) <= 200
    assert len(step_of(f"Downloading {line} (1MiB)")) <= 200


def test_a_build_tells_its_steps(tmp_path: Path):
    steps: list[str] = []
    environments = UvEnvironments(tmp_path, Uv())
    made = asyncio.run(environments.make(script("six"), steps.append))
    assert steps[0] == "resolving what it depends on"
    assert "installing what it depends on" in steps
    assert "installed 1 package, compiling" in steps
    steps.clear()
    asyncio.run(environments.make(script("six", body="x = 1"), steps.append))
    assert "installing what it depends on" not in steps
    assert made.key


def test_a_complaint_has_no_steps_in_it(tmp_path: Path):
    """A uv that says both: what is shown of its failure is the failure."""
    uv = tmp_path / "uv"
    uv.write_text(
        "#!/bin/sh\nprintf 'Downloading numpy (16MiB)\\nerror: no luck\\n Downloaded numpy\\nhalf a line' >&2\nexit 2\n"
    )
    uv.chmod(0o755)
    steps: list[str] = []
    with pytest.raises(Failed) as caught:
        asyncio.run(Uv(str(uv)).run("sync", told=steps.append))
    assert steps == ["downloading numpy (16MiB)", "downloaded numpy"]
    assert caught.value.details["detail"] == "error: no luck\nhalf a line"
    assert caught.value.message == "no luck"


def test_a_step_shows_no_credentials(tmp_path: Path):
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho '   Updating https://me:secret@example.org/shop.git (main)' >&2\n")
    uv.chmod(0o755)
    steps: list[str] = []
    asyncio.run(Uv(str(uv)).run("sync", told=steps.append))
    assert steps == ["fetching https://****@example.org/shop.git"]

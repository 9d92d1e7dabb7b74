"""Programs that only tests want: named with the line that installs them where they are not there."""

from __future__ import annotations

import os
import shutil

import pytest

_PLACES = ("/usr/sbin", "/sbin")  # not on an ordinary user's PATH, and where Debian puts servers


def tool(name: str, package: str = "") -> str:
    """The path of a program. Without it the test is skipped with the reason; in CI, which installs them all, it fails."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_PLACES)))
    if found is not None:
        return found
    missing = f"{name} is not installed: apt install {package or name}"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)

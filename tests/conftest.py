"""What every test may use: `bema` as a user runs it, and the certainty that no test sees the user's own state."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from bema.core import settings
from tests.undertaker import undertaker

# the machine that runs the tests is shared: how long one example took says nothing about the code
hypothesis.settings.register_profile("bema", deadline=None, print_blob=True)
hypothesis.settings.load_profile("bema")

KEPT = {"BEMA_STORY_PYTHON"}


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory for this run; settings of the caller's environment are taken away."""
    state = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("BEMA_") and name not in KEPT]:
            patch.delenv(name)
        patch.delenv("PYTHONUNBUFFERED", raising=False)  # users' streams are buffered, and fail once more at exit
        patch.setenv("BEMA_STATE_DIR", str(state))
        yield state


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> Iterator[None]:
    """A run that is killed leaves no process behind."""
    with undertaker():
        yield


@pytest.fixture(autouse=True)
def own_settings() -> Iterator[None]:
    """What a process reads once, each test reads for itself."""
    settings.place(None)
    yield
    settings.place(None)


@pytest.fixture(scope="session")
def bema_command() -> list[str]:
    """The `bema` under test: this checkout's, or the one of the environment named by BEMA_STORY_PYTHON."""
    return [os.environ.get("BEMA_STORY_PYTHON", sys.executable), "-m", "bema"]


class Bema:
    """Runs `bema` in a folder and a state directory of its own, its output taken through pipes."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.command = command
        self.folder = folder
        self.env = {**os.environ, "BEMA_STATE_DIR": str(folder / "state"), "HOME": str(folder)}

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env={**self.env, **env},
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def bema(bema_command: list[str], tmp_path: Path) -> Bema:
    return Bema(bema_command, tmp_path)


@pytest.fixture
def no_collector():
    """What is dropped has to go by itself: in a process that allocates little the collector may never come by."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()

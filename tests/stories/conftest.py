from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stories.harness import Platform


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A state directory with nothing running on it yet; nothing runs on it afterwards."""
    made = Platform(tmp_path / "state")
    yield made
    made.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that is up, shared by the stories of one module."""
    made = Platform(tmp_path_factory.mktemp("up") / "state")
    try:
        yield made.up()
    finally:
        made.end()


@pytest.fixture
def script() -> Callable[[str], str]:
    """A FastAPI-free web script: the smallest ASGI app that tells its pid and says `word`."""

    def make(word: str) -> str:
        return ECHO.replace("WORD", word)

    return make


ECHO = """
import os

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = f"WORD {os.getpid()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})
"""

"""Programs as the documentation of their frameworks writes them answer below the gateway's prefix."""

from __future__ import annotations

import pytest

from tests.stories.frameworks import HERE, ask
from tests.stories.harness import Platform

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", HERE)
def test_a_program_finds_its_paths_redirects_and_cookies(running: Platform, name: str) -> None:
    ask(running, name)

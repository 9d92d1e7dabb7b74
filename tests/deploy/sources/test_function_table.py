"""`[tool.bema]` says how a function is to be run; what means nothing is refused with its line."""

from __future__ import annotations

import pytest

from bema.core.errors import Invalid
from bema.deploy.model.function import FunctionSettings
from bema.deploy.sources.pep723 import read_metadata


def script(*lines: str) -> str:
    return "\n".join(("# /// script", "# [tool.bema]", *(f"# {line}" for line in lines), "# ///", "app = 1", ""))


def test_settings_and_variables_are_read():
    found = read_metadata(
        script(
            'memory = "512MB"',
            "concurrency = 4",
            "idle_after = 30",
            "keep = true",
            'secrets = ["TOKEN"]',
            'env = { A = "1" }',
        )
    )
    assert found.settings == FunctionSettings(
        memory=512_000_000, concurrency=4, idle_after=30.0, keep=True, secrets=("TOKEN",)
    )
    assert found.env == {"A": "1"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("concurency = 4", "concurency is no setting of a function"),
        ('concurrency = "4"', "concurrency does not fit: Expected `int"),
        ("concurrency = 0", "concurrency cannot hold: concurrency is 0, not between 1 and"),
        ('memory = "much"', "'much' is no size"),
        ('health = "healthz"', "health is 'healthz', not a path that begins with /"),
        ("env = { A = 1 }", "env must be a table of strings"),
    ],
)
def test_what_does_not_fit_is_told_with_its_line(line: str, says: str):
    with pytest.raises(Invalid) as caught:
        read_metadata(script("keep = false", line))
    assert (caught.value.code, caught.value.details["line"]) == ("pep723_malformed", 4)
    assert says in caught.value.message

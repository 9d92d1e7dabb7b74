"""The programs of `python3 dev.py bench factories` are text, which no type check reads: each runs once here."""

from __future__ import annotations

from pathlib import Path

from bench.factories import PLUGINS, PROGRAMS, install, sample


def test_each_program_finds_the_plugins_that_are_installed(tmp_path: Path) -> None:
    install(tmp_path)
    found = {program: sample(program, tmp_path)[1] for program in PROGRAMS}
    assert found == {"B": 10, "all": 2 * PLUGINS, "twelve": 2 * PLUGINS, "second": 50}

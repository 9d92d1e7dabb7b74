"""Type checkers on users' code: what is right passes, what is wrong is found, where it is wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "worker.py"


def mypy(tmp_path: Path, *files: Path) -> list[str]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict"),
            *("--no-error-summary", "--hide-error-context", "--config-file", "", "--no-pretty"),
            *("--cache-dir", str(tmp_path / "cache"), *map(str, files)),
        ],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if " error: " in line]


@pytest.mark.slow
def test_what_users_write_is_typed_and_their_mistakes_are_found(tmp_path):
    mistakes = HERE / "refused" / "mistakes.py"
    found = mypy(tmp_path, HERE / "accepted" / "authoring.py", EXAMPLE, mistakes)
    assert [line for line in found if "mistakes.py" not in line] == []
    reported = {(int(m[1]), m[2]) for line in found if (m := re.search(r"mistakes.py:(\d+): .*\[([a-z-]+)\]$", line))}
    wanted = {
        (number, error)
        for number, line in enumerate(mistakes.read_text().splitlines(), 1)
        if (m := re.search(r"# E: ([a-z, -]+)$", line))
        for error in m[1].split(", ")
    }
    assert reported == wanted


# the lines on which pyright, whose rules have other names, has to find a misspelt or misused option
OPTIONS = (
    "slotz",
    "timeoutt",
    "idempotnt",
    'idempotent="yes"',
    "@on_shutdown(timeout",
    'slots="4"',
    "missd",
    "twice",
    "concurency",
)


@pytest.mark.slow
def test_pyright_finds_a_misspelt_option(tmp_path):
    mistakes, accepted = HERE / "refused" / "mistakes.py", HERE / "accepted" / "authoring.py"
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(mistakes), str(accepted)],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [each for each in json.loads(done.stdout)["generalDiagnostics"] if each["severity"] == "error"]
    assert [each for each in found if each["file"] == str(accepted)] == []
    reported = {each["range"]["start"]["line"] for each in found}
    lines = mistakes.read_text().splitlines()
    for option in OPTIONS:
        (wrong,) = [number for number, line in enumerate(lines) if option in line]
        assert wrong in reported, lines[wrong]

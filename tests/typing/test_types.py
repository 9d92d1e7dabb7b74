"""`mypy --strict` on users' code: what is right passes, what is wrong is found, where it is wrong."""

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
        (number, m[1])
        for number, line in enumerate(mistakes.read_text().splitlines(), 1)
        if (m := re.search(r"# E: ([a-z-]+)$", line))
    }
    assert reported == wanted

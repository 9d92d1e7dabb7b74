"""What a script can get wrong, and what its author and its callers see."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.stories.harness import Platform

pytestmark = pytest.mark.slow


def refused(platform: Platform, name: str, code: str) -> dict[str, Any]:
    """Post a script that must be refused; the error, after checking that nothing was made."""
    with platform.http(seconds=120) as api:
        answer = api.post("/faas/python", json={"name": name, "code": code})
        assert answer.status_code == 422, answer.text
        assert name not in [item["name"] for item in api.get("/faas/python").json()["items"]]
    error: dict[str, Any] = answer.json()["error"]
    return error


def test_a_syntax_error_names_line_and_column(running: Platform) -> None:
    error = refused(running, "typo", "x = 1\ndef f(:\n    pass\n")
    assert (error["code"], error["line"], error["column"]) == ("syntax_error", 2, 7)


@pytest.mark.parametrize(
    ("code", "block"),
    [
        ("pep723_malformed", "# /// script\n# dependencies = [\n# ///\n"),
        ("pep723_unclosed", "# /// script\n# dependencies = []\nimport os\n"),
        ("pep723_duplicated", "# /// script\n# dependencies = []\n# ///\n\n# /// script\n# dependencies = []\n# ///\n"),
    ],
)
def test_each_way_to_break_the_block_has_its_own_answer(running: Platform, code: str, block: str) -> None:
    error = refused(running, "block", block)
    assert error["code"] == code
    assert error["line"] >= 1


BOMBS = {
    "a dotted key": ("# /// script\n# " + ".".join("a" * 30_000) + " = 1\n# ///\n", "pep723_malformed"),
    "a nested array": ("# /// script\n# x = " + "[" * 30_000 + "\n# ///\n", "pep723_malformed"),
    "a long block": ("# /// script\n" + "# a.b.c.d = 1\n" * 60_000 + "# ///\n", "pep723_malformed"),
    "digits": ("# /// script\n# x = " + "9" * 5000 + "\n# ///\n", "pep723_malformed"),
    "too many functions": ("def f(): 0\n" * 90_000, "syntax_error"),
    "too many statements": ("x;" * 500_000, "syntax_error"),
    "nested deeply": ("x = " + "-" * 500_000 + "1\n", "syntax_error"),
    "one line": ("x = " + "a." * 500_000 + "a\n", "syntax_error"),
}


@pytest.mark.alone
def test_while_bombs_are_read_everybody_else_is_answered(platform: Platform) -> None:
    platform.env["BEMA_LIMITS__SCRIPT_TIME"] = "1"
    platform.up()

    def memory() -> int:
        status = Path(f"/proc/{platform.system('orchestrator')}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))

    deployed = platform.deploy("bystander", "async def app(scope, receive, send): ...\n")["id"]
    before = memory()
    with ThreadPoolExecutor(len(BOMBS)) as pool, platform.http() as api:
        # nothing waits for its turn in the gateway: each has its own connection
        refusals = {name: pool.submit(refused, platform, "bomb", code) for name, (code, _) in BOMBS.items()}
        longest = 0.0
        while not all(refusal.done() for refusal in refusals.values()):
            begun = time.monotonic()
            assert api.get(f"/faas/python/{deployed}").json()["state"] == "ready"
            longest = max(longest, time.monotonic() - begun)
            time.sleep(0.02)
    for name, (_, code) in BOMBS.items():
        assert refusals[name].result()["code"] == code, name
    assert longest < 2
    assert memory() - before < 100 * 1024  # KiB; each text is kept as it came, and as what is stored of it
    assert platform.stop() == 0


def test_a_dependency_that_does_not_exist(running: Platform) -> None:
    script = '# /// script\n# dependencies = ["bema-no-such-package-ever==1"]\n# ///\napp = 1\n'
    made = running.deploy("nodep", script, state="build_failed")
    assert "bema-no-such-package-ever" in str(made["error"])
    with httpx2.Client(timeout=5, trust_env=False) as client:
        answer = client.get(made["url"])
    assert answer.status_code == 424
    assert answer.json()["error"]["code"] == "build_failed"


def test_a_script_that_ends_at_once(running: Platform) -> None:
    made = running.deploy("brief", "print('so long')\n", state="start_failed")
    assert "so long" in str(made["error"])
    with httpx2.Client(timeout=40, trust_env=False) as client:
        assert client.get(made["url"]).status_code == 503


def test_a_script_that_raises_shows_its_traceback(running: Platform) -> None:
    made = running.deploy(
        "broken", "import os\nos.environ['NOT_THERE']\nasync def app(s, r, se): ...\n", state="start_failed"
    )
    assert "KeyError" in str(made["error"])
    assert "NOT_THERE" in running.bema("logs", "broken").stdout


def test_an_unwritable_state_directory_is_one_line(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("not a folder")
    platform = Platform(tmp_path / "file" / "state")
    done = platform.bema("up")
    assert done.returncode == 1
    assert "state_unwritable" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_was_asked_for_and_is_taken(running: Platform, tmp_path: Any) -> None:
    other = Platform(tmp_path / "other")
    other.env["BEMA_GATEWAY__PORT"] = running.gateway.rpartition(":")[2]
    done = other.bema("up")
    assert done.returncode == 1
    assert "port_in_use" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any((tmp_path / "other").glob("up.json"))

"""dev.py where it can be tried without a network: what it refuses, what it skips, how it counts."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import dev

ROOT = Path(__file__).parents[1]


def test_it_needs_the_standard_library_only():
    allowed = {*sys.stdlib_module_names, "tools"}
    for file in (ROOT / "dev.py", *(ROOT / "tools").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            for name in [a.name for a in node.names] if isinstance(node, ast.Import) else []:
                assert name.split(".")[0] in allowed
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] in allowed


@pytest.fixture
def checkout(tmp_path):
    """A checkout in which nothing is set up."""
    for name in ("dev.py", "uv.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "bench").mkdir()
    return tmp_path


def run(checkout, *arguments, **env):
    command = [sys.executable, "dev.py", *arguments]
    return subprocess.run(
        command, cwd=checkout, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=60
    )


def test_without_a_verb_it_says_what_it_can_do(checkout):
    done = run(checkout)
    assert done.returncode == 1
    assert all(
        f"\n    {verb}" in done.stdout for verb in ("up", "test", "setup", "check", "bench", "soak", "docs", "build")
    )
    assert run(checkout, "--help").returncode == 0


def test_a_benchmark_that_is_none_is_answered_with_those_there_are(checkout):
    (checkout / "bench" / "rpc.py").write_text('if __name__ == "__main__":\n    pass\n')
    (checkout / "bench" / "harness.py").write_text("")
    done = run(checkout, "bench", "nope")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: name one of: rpc\n  fix: python3 dev.py bench NAME\n"


def test_without_ensurepip_it_prints_the_one_line_that_mends_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        dev.make_environment()
    assert stopped.value.code == 1
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert capsys.readouterr().err.splitlines()[-1] == f"  fix: sudo apt install python{version}-venv"


def test_an_environment_that_is_as_the_lock_says_is_left_alone(checkout, monkeypatch):
    venv = checkout / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "bema").write_text("")
    monkeypatch.setattr(dev, "ROOT", checkout)
    monkeypatch.setattr(dev, "VENV", venv)
    monkeypatch.setattr(dev, "BIN", venv / "bin")
    monkeypatch.setattr(dev, "STAMP", venv / ".bema-setup.json")
    monkeypatch.setattr(dev, "run", lambda *a, **k: pytest.fail("something was run"))
    dev.STAMP.write_text(f'{{"key": "{dev.stamp_of(checkout)}", "extras": ["dev"], "root": "{checkout}"}}')
    dev.set_up(("dev",))


def test_the_stamp_changes_with_all_that_the_environment_depends_on(checkout):
    first = dev.stamp_of(checkout)
    assert dev.stamp_of(checkout) == first
    for name in ("uv.lock", "pyproject.toml"):
        (checkout / name).write_text((checkout / name).read_text() + "\n")
        assert dev.stamp_of(checkout) != first
        first = dev.stamp_of(checkout)
    moved = checkout.with_name("moved")
    checkout.rename(moved)
    assert dev.stamp_of(moved) != first


def test_uv_is_the_one_of_the_lock():
    assert dev.locked_version("uv") == "0.13.8"


def test_tools_find_the_environment_first_and_fetch_no_python(monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", "/elsewhere")
    env = dev.tools_environment()
    assert env["PATH"].split(os.pathsep)[0] == str(dev.BIN)
    assert env["UV_PYTHON_DOWNLOADS"] == "never"
    assert "VIRTUAL_ENV" not in env


def test_every_test_is_counted_once():
    cases = ET.fromstring(
        "<s><testcase/><testcase><failure/></testcase><testcase><error/></testcase><testcase><skipped/></testcase></s>"
    ).findall("testcase")
    assert dev.counted("tests", cases, 1.5) == dev.Result("tests", passed=1, failed=2, skipped=1, seconds=1.5)


def test_the_runtime_s_suite_runs_on_each_python_that_is_there_and_who_is_not_is_named(monkeypatch, capsys):
    asked: dict[str, dev.Command] = {}

    def note(stages: dict[str, dev.Command], suites: dict[str, dev.Command]) -> int:
        asked.update(suites)
        return 0

    monkeypatch.setattr(dev, "set_up", lambda extras: None)
    monkeypatch.setattr(dev, "there", lambda tool: True)
    monkeypatch.setattr(dev, "other_pythons", lambda: {"python3.12": "/opt/bin/python3.12"})
    monkeypatch.setattr(dev, "run_stages", note)
    assert dev.test([]) == 0
    assert capsys.readouterr().out.startswith("not found: python3.13;")
    assert list(asked) == ["tests", "stories", "python3.12"]
    words = [str(part) for part in asked["python3.12"]]
    assert words[words.index("--python") + 1] == "/opt/bin/python3.12"
    assert set(dev.RUNTIME_SUITE) <= set(words)

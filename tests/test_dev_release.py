"""`dev.py release`: what it refuses, and that it says how to upload without doing it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

import dev
from bema.core.version import VERSION
from tools.release import check_release, upload_command

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "bema" / "core").mkdir(parents=True)
    (tmp_path / "bema" / "core" / "version.py").write_text((ROOT / "bema" / "core" / "version.py").read_text())
    (tmp_path / "CHANGELOG.md").write_text(
        f"# Changelog\n\n## [Unreleased]\n\n## [{VERSION}] - {date(2026, 1, 31)}\n\n### Added\n- Services.\n"
    )
    return tmp_path


def refusal(checkout, capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        check_release(checkout, list(arguments))
    assert stopped.value.code == 1
    return capsys.readouterr().err


def test_a_version_that_both_files_say_is_ready(checkout):
    assert check_release(checkout, [VERSION]) == VERSION


@pytest.mark.parametrize("arguments", [(), ("1.2",), ("v1.2.3",), ("1.2.3", "1.2.4"), ("../1.2.3",)])
def test_it_wants_one_version(checkout, capsys, arguments):
    assert refusal(checkout, capsys, *arguments).startswith("error: name one version")


def test_a_version_that_the_source_does_not_say_is_refused(checkout, capsys):
    assert f"version.py says {VERSION}, not 99.0.0" in refusal(checkout, capsys, "99.0.0")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ("# Changelog\n\n## [Unreleased]\n- Services.\n", f"has no section of {VERSION}"),
        (f"## [{VERSION}]\n- Undated.\n", f"has no section of {VERSION}"),
        (f"## [{VERSION}] - 2026-01-31\n\n## [0.0.1] - 2025-01-01\n- Old.\n", f"says nothing of {VERSION}"),
    ],
)
def test_a_version_that_the_changelog_does_not_tell_of_is_refused(checkout, capsys, changes, why):
    (checkout / "CHANGELOG.md").write_text(changes)
    assert why in refusal(checkout, capsys, VERSION)


def test_what_is_refused_is_not_built(monkeypatch):
    monkeypatch.setattr(dev, "build", lambda arguments: pytest.fail("it was built"))
    with pytest.raises(SystemExit):
        dev.release(["99.0.0"])


def test_it_says_how_to_upload_what_it_built_and_uploads_nothing(checkout, monkeypatch, capsys):
    def build(arguments):
        (checkout / "dist").mkdir()
        for name in (f"bema-{VERSION}-py3-none-any.whl", f"bema-{VERSION}.tar.gz"):
            (checkout / "dist" / name).touch()
        return 0

    monkeypatch.setattr(dev, "ROOT", checkout)
    monkeypatch.setattr(dev, "build", build)
    assert dev.release([VERSION]) == 0
    last = capsys.readouterr().out.splitlines()[-1].strip()
    files = f"dist/bema-{VERSION}-py3-none-any.whl dist/bema-{VERSION}.tar.gz"
    assert last == upload_command(checkout, VERSION) == f".venv/bin/uv publish {files}"


def test_what_failed_to_build_is_not_said_to_be_ready(checkout, monkeypatch, capsys):
    monkeypatch.setattr(dev, "ROOT", checkout)
    monkeypatch.setattr(dev, "build", lambda arguments: 1)
    assert dev.release([VERSION]) == 1
    assert "publish" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_version_that_is_ready_is_built_and_its_wheel_tells_the_story(tmp_path):
    checkout = tmp_path / "checkout"
    left_out = shutil.ignore_patterns(".git", ".venv*", ".b*", ".dev.lock", ".*_cache", "__pycache__", "dist", "site")
    shutil.copytree(ROOT, checkout, ignore=left_out, symlinks=True)
    changes = (checkout / "CHANGELOG.md").read_text()
    dated = changes.replace("## [Unreleased]\n", f"## [Unreleased]\n\n## [{VERSION}] - 2026-01-31\n", 1)
    (checkout / "CHANGELOG.md").write_text(dated)
    python = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run(
        [python, "dev.py", "release", VERSION], cwd=checkout, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"story from bema-{VERSION}-py3-none-any.whl in a clean environment" in done.stdout
    files = f"dist/bema-{VERSION}-py3-none-any.whl dist/bema-{VERSION}.tar.gz"
    assert done.stdout.splitlines()[-1] == f"  .venv/bin/uv publish {files}"

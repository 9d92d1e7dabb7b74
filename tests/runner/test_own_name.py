"""The names under which a deployed file is imported by what it starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bema.runner import own_name


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


def version(folder: Path, number: int) -> Path:
    script = folder / f"v{number}" / "script.py"
    script.parent.mkdir()
    script.write_text("app = 1\n")
    return script


def test_the_name_of_a_deployment_leads_to_its_file(temporary, tmp_path):
    assert own_name.offer(version(tmp_path, 1), {"name": "night-shop"}) == ["night-shop", "night_shop"]
    (folder,) = temporary.iterdir()
    assert sys.path[-1] == str(folder)
    assert (folder / "night_shop.py").read_text() == "app = 1\n"


def test_the_folder_of_a_version_that_was_forgotten_goes_with_the_next_start(temporary, tmp_path):
    first, second, third = (version(tmp_path, number) for number in (1, 2, 3))
    # a name that is found already is offered to nobody: each is its own
    own_name.offer(first, {"name": "shop1"})
    own_name.offer(second, {"name": "shop2"})
    first.unlink()
    (temporary / "bema-notes").mkdir()
    (temporary / "bema-notes" / "mine.txt").write_text("a folder of the script's own stays")
    own_name.offer(third, {"name": "shop3"})
    links = {link.resolve() for link in temporary.glob("bema-*/shop*.py")}
    assert links == {second.resolve(), third.resolve()}
    assert (temporary / "bema-notes" / "mine.txt").exists()

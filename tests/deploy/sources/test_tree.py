"""Files of any source become a tree that can be laid out on any disk, or are refused with the path that is wrong."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies

from bema.core.errors import BemaError, Invalid, TooLarge
from bema.core.limits import DEFAULTS
from bema.deploy.model.bundle import Bundle
from bema.deploy.sources.source import Fetched, SourceFactory
from bema.deploy.sources.tree import bundle_of, check_path, check_paths


def files(said: dict[str, Any]) -> Fetched:
    return asyncio.run(SourceFactory.choose("files").of({"type": "files", **said}, DEFAULTS).fetch())


def test_the_body_of_a_gist_is_a_source():
    found = files({"files": {"main.py": {"content": "import shop"}, "shop.py": "x = 1"}})
    assert found.bundle == Bundle({"main.py": b"import shop", "shop.py": b"x = 1"})
    assert found.origin.type == "files"


def test_bytes_travel_as_base64_and_the_entry_is_said_beside():
    image = {"base64": base64.b64encode(b"\x89PNG\xff").decode()}
    found = files({"files": {"a.py": "", "run.py": "1", "logo.png": image}, "entry": "run.py"})
    assert (found.bundle.entry, found.bundle.files["logo.png"]) == ("run.py", b"\x89PNG\xff")


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({}, "files"),
        ({"files": {}, "entry": 1}, r"\$\.entry"),
        ({"files": {}, "sha": ""}, "sha"),
        ({"files": {"a.py": 1}}, r"\$\.files"),
        ({"files": {"a.py": {}}}, r"files\.a\.py"),
        ({"files": {"a.py": {"base64": "é"}}}, "base64"),
        ({"files": {}}, "no files"),
        ({"files": {"a.py": "", "b.py": ""}}, "none is main.py"),
        ({"files": {"a.py": "\udc80"}}, "UTF-8"),
    ],
)
def test_what_does_not_fit_is_named(said: dict[str, Any], word: str):
    with pytest.raises(Invalid, match=word):
        files(said)


def test_a_pyproject_names_the_file_that_is_run():
    pyproject = '[tool.bema]\nentry_file = "src/shop.py"\n'
    said = {"pyproject.toml": pyproject, "src/shop.py": "", "src/other.py": ""}
    assert files({"files": said}).bundle.entry == "src/shop.py"
    assert files({"files": said, "entry": "src/other.py"}).bundle.entry == "src/other.py"


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/passwd", "../up.py", "a/../../b.py", "a//b.py", "./a.py", "a/", "", "a\\b.py", "C:/a.py", "a\nb.py"),
        *("a\0.py", "x" * 256, "/".join(["x" * 100] * 6), "\udc80.py"),
    ],
)
def test_a_path_that_is_none_of_a_tree_is_refused(path: str):
    with pytest.raises(Invalid) as caught:
        check_paths(["main.py", path])
    assert caught.value.code == "archive_refused"


@pytest.mark.parametrize("paths", [["a.py", "A.py"], ["straße", "STRASSE"], ["a", "a/b"], ["a/b", "a"], ["a/b/c", "A"]])
def test_paths_that_a_disk_could_not_hold_beside_each_other_are_refused(paths: list[str]):
    with pytest.raises(Invalid):
        check_paths(paths)


@given(strategies.text(max_size=20))
def test_a_path_that_passes_stays_within_its_folder(path: str):
    try:
        check_path(path)
    except Invalid:
        return
    folder = Path("/somewhere/deep")
    assert (folder / path).resolve().is_relative_to(folder)
    assert (folder / path).resolve() != folder
    assert Bundle({path: b""}).files == {path: b""}


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (DEFAULTS.but(source_files=1), "source_too_large"),
        (DEFAULTS.but(source_bytes=1024), "source_too_large"),
        (DEFAULTS.but(script=10), "script_too_large"),
    ],
)
def test_a_tree_over_its_limits_names_the_limit(limits, code):
    with pytest.raises(TooLarge) as caught:
        bundle_of({"main.py": b"#" * 1000, "data.txt": b"#" * 1000}, limits)
    error: BemaError = caught.value
    assert (error.code, error.problem.http) == (code, 413)
    assert error.details["limit"] in (1, 10, 1024)

"""A Bundle is known by what is in it."""

from pathlib import Path

import pytest
from hypothesis import given, strategies

from bema.core.errors import Invalid
from bema.core.limits import DEFAULTS
from bema.deploy.model.bundle import Bundle
from bema.deploy.sources.source import SourceFactory

NAMES = strategies.text("abé.", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
PATHS = strategies.lists(NAMES, min_size=1, max_size=3).map("/".join)


@given(strategies.dictionaries(PATHS, strategies.binary(max_size=4)))
def test_what_is_stored_of_it_comes_back_equal_under_the_same_digest(files: dict[str, bytes]):
    bundle = Bundle(files)
    assert Bundle.decode(bundle.encoded) == bundle
    assert Bundle(dict(reversed(files.items()))).digest == bundle.digest == Bundle.decode(bundle.encoded).digest


@given(
    strategies.dictionaries(PATHS, strategies.binary(max_size=2)),
    strategies.dictionaries(PATHS, strategies.binary(max_size=2)),
)
def test_other_files_are_another_bundle(one: dict[str, bytes], other: dict[str, bytes]):
    assert (Bundle(one).digest == Bundle(other).digest) == (one == other)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../../b", "a//b", "./a", "a/", "a\0b"])
def test_a_path_that_leaves_its_folder_or_has_two_spellings_is_refused(path: str):
    with pytest.raises(Invalid, match="cannot be the path"):
        Bundle({path: b""})


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x91\x01", b"print('hello')"])
def test_what_is_no_bundle_is_refused(content: bytes):
    with pytest.raises(Invalid, match="no bundle"):
        Bundle.decode(content)


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        (["script.py", "main.py"], "script.py"),
        (["main.py", "shop.py"], "main.py"),
        (["shop/app.py", "README.md"], "shop/app.py"),
    ],
)
def test_the_file_that_is_run_is_the_usual_one(files: list[str], entry: str):
    bundle = Bundle({path: path.encode() for path in files})
    assert (bundle.entry, bundle.script) == (entry, entry.encode())
    assert Bundle(bundle.files, entry).digest == bundle.digest


def test_another_file_that_is_run_makes_another_bundle_and_is_kept_with_it():
    files = {"main.py": b"1", "shop.py": b"2"}
    bundle = Bundle(files, "shop.py")
    assert (bundle.script, Bundle.decode(bundle.encoded)) == (b"2", bundle)
    assert bundle.digest != Bundle(files).digest
    assert bundle != Bundle(files)


@pytest.mark.parametrize(("files", "entry"), [({"a.py": b"", "b.py": b""}, ""), ({"main.py": b""}, "nope.py")])
def test_where_nothing_says_what_is_run_the_error_does(files: dict[str, bytes], entry: str):
    with pytest.raises(Invalid) as caught:
        _ = Bundle(files, entry).entry
    assert caught.value.code == "entry_file_missing"


def test_files_are_laid_out_whole_and_once(tmp_path: Path):
    bundle = Bundle({"main.py": b"import shop", "shop/__init__.py": b"", "data/a.txt": b"1"})
    folder = tmp_path / "versions" / "one"
    (folder / "left").mkdir(parents=True)
    bundle.place(folder)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == dict(bundle.files)
    (folder / "data" / "a.txt").write_bytes(b"2")
    bundle.place(folder)
    assert (folder / "data" / "a.txt").read_bytes() == b"2"
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


def test_a_source_that_is_described_wrongly_is_refused():
    with pytest.raises(Invalid, match="`code`"):
        SourceFactory.choose("inline").of({"type": "inline"}, DEFAULTS)
